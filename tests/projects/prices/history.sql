-- Recomputed over the transform.
SELECT user_id, array_agg(grade ORDER BY ts, event_id) AS grades FROM graded GROUP BY user_id
