-- Recompute over a transform.
SELECT user_id, string_agg(grade, ' ' ORDER BY ts, event_id) AS grades
FROM graded
GROUP BY user_id
