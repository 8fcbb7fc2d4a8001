-- Proofs of each build by the hour in which they ended, recent and older ones.
CREATE OR REPLACE VIEW refold.proofs_by_hour AS
SELECT build_id, depth, hour, sum(proofs)::bigint AS proofs, sum(differed)::bigint AS differed
FROM (
    SELECT build_id, depth, hour, proofs, differed FROM refold.proof_hours
    UNION ALL
    SELECT build_id, depth, date_trunc('hour', ended_at, 'UTC'), 1, differed FROM refold.proofs
) AS both_tables
GROUP BY build_id, depth, hour;

COMMENT ON VIEW refold.proofs_by_hour IS 'Number of proofs of each build by hour and depth, and the slices that differed in them.';
