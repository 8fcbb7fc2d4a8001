-- Members over a transform.
SELECT grade, count(*) AS events, count(DISTINCT user_id) AS users
FROM graded
GROUP BY grade
