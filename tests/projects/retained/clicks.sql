-- A row for each event.
SELECT event_id, user_id, action, ts, (metadata->>'n')::numeric AS n
FROM events
WHERE action <> 'noise'
