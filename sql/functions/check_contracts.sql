-- Check new events against their contracts, by whatever door they came. An event that breaks one which is enforced fails
-- its statement: refold.admit_parsed then answers for each. Those of other levels are counted, in a row of their own.
CREATE OR REPLACE FUNCTION refold.check_contracts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    refused record;
BEGIN
    IF TG_RELID <> 'refold.events'::regclass THEN
        RAISE EXCEPTION 'refold.check_contracts is the trigger of refold.events' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT EXISTS (SELECT FROM refold.contracts WHERE level <> 'off')
       -- A restored event was stored before.
       OR coalesce(current_setting('refold.restoring', true), '') = 'on' AND refold.restoring()
       -- A few look their contracts up by the key: a hash of all contracts costs more than the rest of the check.
       OR NOT EXISTS (SELECT FROM arrived OFFSET 16) AND NOT EXISTS (
           SELECT FROM arrived AS n
           LEFT JOIN LATERAL (
               SELECT o.action, o.level, o.predicate, o.keys FROM refold.contracts AS o
               WHERE o.action = n.action AND o.version = n.version OFFSET 0
           ) AS c ON true
           WHERE CASE
               WHEN c.action IS NULL
                   THEN (SELECT s.unknown_versions <> 'accept' FROM refold.settings AS s)
                        AND EXISTS (SELECT FROM refold.contracts AS o WHERE o.action = n.action AND o.level <> 'off')
               ELSE c.level <> 'off' AND NOT refold.keeps_contract(n.metadata, c.predicate, c.keys)
           END
       ) THEN
        RETURN NULL;
    END IF;
    WITH suspects AS MATERIALIZED (
        -- By itself: else the planner may look for the reason before it looks at the predicate, or carry whole contracts.
        SELECT n.position, n.event_id, n.action, n.version, n.metadata,
               CASE WHEN c.action IS NULL THEN s.unknown_versions = 'reject' ELSE c.level = 'enforce' END AS refused
        FROM arrived AS n
        CROSS JOIN refold.settings AS s
        LEFT JOIN refold.contracts AS c ON c.action = n.action AND c.version = n.version
        WHERE CASE
            WHEN c.action IS NULL
                THEN s.unknown_versions <> 'accept'
                     AND n.action IN (SELECT o.action FROM refold.contracts AS o WHERE o.level <> 'off')
            ELSE c.level <> 'off' AND NOT refold.keeps_contract(n.metadata, c.predicate, c.keys)
        END
    ),
    broken AS MATERIALIZED (
        SELECT x.*, b.rule, b.reason
        FROM suspects AS x
        CROSS JOIN LATERAL refold.broken_rule(x.action, x.version, x.metadata) AS b
    ),
    counted AS (
        INSERT INTO refold.violations (action, version, rule, refused, hour, events, event_id)
        SELECT b.action, b.version, b.rule, false, date_trunc('hour', clock_timestamp()), count(*), min(b.event_id)
        FROM broken AS b
        WHERE NOT b.refused
        GROUP BY b.action, b.version, b.rule
    )
    SELECT b.event_id, b.reason INTO refused FROM broken AS b WHERE b.refused ORDER BY b.position LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%', refused.reason
            USING ERRCODE = 'check_violation', CONSTRAINT = 'events_contract',
                  DETAIL = 'The event is ' || quote_literal(left(refused.event_id, 60)) || '.',
                  HINT = 'Use refold.append, which answers for each event and stores the valid ones.';
    END IF;
    RETURN NULL;
END
$$;
