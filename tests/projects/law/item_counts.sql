-- Merge over a list.
SELECT
    item,
    count(*)        AS times,
    max(place)      AS furthest,
    min(ts)         AS first_at
FROM items
GROUP BY item
