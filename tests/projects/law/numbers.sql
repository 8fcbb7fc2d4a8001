-- Merge over facts, by a numeric key that may be null and may print in several ways.
SELECT
    n,
    count(*)        AS events,
    min(user_id)    AS first_user,
    max(ts)         AS last_at
FROM clicks
GROUP BY n
