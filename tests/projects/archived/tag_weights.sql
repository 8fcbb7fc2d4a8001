-- Behind a transform.
SELECT tag, sum(weight) AS weight, count(*) AS events, count(DISTINCT user_id) AS users
FROM tagged
GROUP BY tag
