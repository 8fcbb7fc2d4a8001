-- What each event was worth.
SELECT
    event_id,
    user_id,
    action,
    ts,
    (metadata ->> 'amount')::bigint AS amount
FROM events
