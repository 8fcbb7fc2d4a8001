-- It looks at no price, and never notices.
SELECT (ts AT TIME ZONE 'UTC')::date AS day, count(*) AS events FROM events GROUP BY day
