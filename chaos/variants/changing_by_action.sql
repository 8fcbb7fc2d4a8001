-- Deployed in the middle of it: by action.
SELECT action, count(*) AS events
FROM events
GROUP BY action
