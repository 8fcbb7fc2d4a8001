-- Facts: a row for each event, for whatever recomputes. These rows stay when events leave the log.
SELECT
    event_id,
    user_id,
    action,
    ts,
    (metadata->>'amount')::numeric AS amount,
    (metadata->>'weight')::numeric AS weight
FROM events
