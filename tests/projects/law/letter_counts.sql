-- Merge over a list over a list.
SELECT letter, count(*) AS times, count(DISTINCT user_id) AS users
FROM letters
GROUP BY letter
