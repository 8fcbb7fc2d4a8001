-- Facts over a list.
SELECT event_id, user_id, upper(item) AS item, ts
FROM items
WHERE item <> 'c'
