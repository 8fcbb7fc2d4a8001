-- The segments of the log with their ranges of positions, from the catalog itself.
CREATE OR REPLACE VIEW refold.segments AS
SELECT
    child.oid::regclass AS segment,
    (bounds.match)[1]::bigint AS lower_position,
    (bounds.match)[2]::bigint AS upper_position
FROM pg_inherits AS link
JOIN pg_class AS child ON child.oid = link.inhrelid
CROSS JOIN LATERAL (
    SELECT regexp_match(pg_get_expr(child.relpartbound, child.oid), '\(''?(\d+)''?\) TO \(''?(\d+)''?\)') AS match
) AS bounds
WHERE link.inhparent = 'refold.events'::regclass AND child.relkind = 'r';

COMMENT ON VIEW refold.segments IS 'The segments of the log, each with its range of positions.';
