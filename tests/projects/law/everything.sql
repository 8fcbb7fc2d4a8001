-- One row: a key that is a constant.
SELECT
    'all'           AS scope,
    count(*)        AS events,
    max(event_id)   AS last_id
FROM events
GROUP BY scope
