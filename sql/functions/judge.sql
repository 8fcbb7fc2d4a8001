-- Parsed events, with the reason of those that contracts refuse. What the ledger knows is left alone: an event that was
-- stored before its contract was enforced is a duplicate.
CREATE OR REPLACE FUNCTION refold.judge(parsed refold.parsed_event[]) RETURNS refold.parsed_event[]
LANGUAGE sql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
-- A session keeps its plans, maybe from when tables were empty. So one plan serves all calls, and looks up by indexes alone;
-- OFFSET 0 keeps a lookup from being joined in another way.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
WITH suspects AS MATERIALIZED (
    SELECT p.ordinal, p.action, p.version, p.metadata
    FROM unnest(parsed) AS p
    CROSS JOIN refold.settings AS s
    LEFT JOIN LATERAL (
        SELECT o.action, o.level, o.predicate, o.keys FROM refold.contracts AS o
        WHERE o.action = p.action AND o.version = p.version OFFSET 0) AS c ON true
    WHERE s.singleton AND p.reason IS NULL
      AND NOT EXISTS (SELECT FROM refold.event_ids AS stored WHERE stored.event_id = p.event_id OFFSET 0)
      AND NOT EXISTS (
          SELECT FROM refold.erased_events AS e WHERE e.renamed AND e.mac = refold.erasure_mac(p.event_id) OFFSET 0)
      AND NOT EXISTS (SELECT FROM refold.archived_ids(ARRAY[p.event_id]))
      AND CASE
          WHEN c.action IS NULL
              THEN s.unknown_versions = 'reject'
                   AND p.action IN (SELECT o.action FROM refold.contracts AS o WHERE o.level <> 'off')
          ELSE c.level = 'enforce' AND NOT refold.keeps_contract(p.metadata, c.predicate, c.keys)
      END
),
judged AS MATERIALIZED (
    SELECT p.*, x.rule AS broken, x.because
    FROM unnest(parsed) AS p
    LEFT JOIN (
        SELECT x.ordinal, b.rule, b.reason AS because
        FROM suspects AS x
        CROSS JOIN LATERAL refold.broken_rule(x.action, x.version, x.metadata) AS b
    ) AS x ON x.ordinal = p.ordinal
),
counted AS (
    INSERT INTO refold.violations (action, version, rule, refused, hour, events, event_id)
    SELECT j.action, j.version, j.broken, true, date_trunc('hour', clock_timestamp()), count(*), min(j.event_id)
    FROM judged AS j
    WHERE j.because IS NOT NULL
    GROUP BY j.action, j.version, j.broken
)
SELECT array_agg(
    ROW(j.ordinal, j.event_id, j.user_id, j.action, j.ts, j.metadata, j.version, coalesce(j.reason, j.because)
    )::refold.parsed_event ORDER BY j.ordinal)
FROM judged AS j
$$;

COMMENT ON FUNCTION refold.judge(refold.parsed_event[])
    IS 'Return parsed events with the reason of those that contracts refuse.';
