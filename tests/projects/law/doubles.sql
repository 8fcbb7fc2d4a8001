-- Facts over facts.
SELECT
    event_id,
    user_id,
    n * 2 AS twice
FROM clicks
WHERE n IS NOT NULL
