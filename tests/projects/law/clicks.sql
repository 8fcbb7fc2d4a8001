-- Facts on the log: what anybody did, with a number that may print in several ways (1.0 and 1.00).
SELECT
    event_id,
    user_id,
    action,
    ts,
    (metadata->>'n')::numeric AS n
FROM events
WHERE action <> 'noise'
