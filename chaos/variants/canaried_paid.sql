-- What canaries change: how often everything was done that has an amount.
SELECT action, count(*) AS events
FROM events
WHERE metadata ? 'amount'
GROUP BY action
