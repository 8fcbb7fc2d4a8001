-- Tampered with. Facts: a row for each purchase.
SELECT event_id, user_id, ts, (metadata->>'amount')::numeric AS amount
FROM events
WHERE action = 'purchase'
