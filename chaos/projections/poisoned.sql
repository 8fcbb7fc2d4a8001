-- The sum of a number that some events do not have, but a word.
SELECT action, count(*) AS events, sum((metadata->>'number')::numeric) AS total
FROM events
GROUP BY action
