-- Merge whose view fails, and not the table: by nothing, for whatever is no number.
SELECT
    action,
    count(*)                                                                    AS events,
    1 / (1 - max(CASE WHEN metadata->>'n' = 'poison' THEN 1 ELSE 0 END))        AS unspoilt
FROM events
WHERE action <> 'noise'
GROUP BY action
