-- Merge over a transform that leaves events out.
SELECT
    tag,
    sum(weight)     AS weight,
    count(*)        AS events
FROM tagged
GROUP BY tag
