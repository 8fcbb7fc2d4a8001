-- What canaries change: how often everything was done.
SELECT action, count(*) AS events
FROM events
GROUP BY action
