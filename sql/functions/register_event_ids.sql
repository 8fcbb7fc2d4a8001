-- Register the ids of new events in the ledger, however they were written: a statement with an id that exists already fails
-- as a whole. Ids are inserted in order, so that two batches cannot deadlock. If they come in a sampled trace, record it.
CREATE OR REPLACE FUNCTION refold.register_event_ids() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
-- A session keeps its plans, maybe from when tables were empty. So one plan serves all calls, and looks up by indexes alone;
-- OFFSET 0 keeps a lookup from being joined in another way.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
    stranger text;
    many bigint;
    context text;
    parts text[];
BEGIN
    IF TG_RELID <> 'refold.events'::regclass THEN
        RAISE EXCEPTION 'refold.register_event_ids is the trigger of refold.events' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF coalesce(current_setting('refold.restoring', true), '') = 'on' AND refold.restoring() THEN
        -- Restored events must be in the ledger, with the same content and position; others are refused.
        -- Of an erased event the ledger has the digest 0; what stands in its place may be restored, and nothing else.
        SELECT n.event_id INTO stranger
        FROM arrived AS n
        CROSS JOIN LATERAL (SELECT refold.digest(n.user_id, n.action, n.ts, n.metadata, n.version) AS digest) AS c
        LEFT JOIN LATERAL (
            SELECT o.digest, o.position FROM refold.event_ids AS o WHERE o.event_id = n.event_id OFFSET 0) AS k ON true
        WHERE (k.digest, k.position) IS DISTINCT FROM (c.digest, n.position)
          AND NOT (k.digest = 0 AND k.position = n.position AND EXISTS (
              SELECT FROM refold.erased_events AS e
              WHERE e.position = n.position AND e.done AND e.digest = c.digest OFFSET 0))
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'the ledger knows no such event: %', stranger
                USING ERRCODE = 'integrity_constraint_violation',
                      HINT = 'Copy the rows as they were, with txid, position and recorded_at.';
        END IF;
        DELETE FROM refold.lost_events AS l USING arrived AS n WHERE l.event_id = n.event_id;
        RETURN NULL;
    END IF;
    -- Erased events whose ids the ledger must not keep.
    IF EXISTS (SELECT FROM refold.erased_events AS e WHERE e.renamed) AND EXISTS (
        SELECT FROM arrived AS n
        WHERE EXISTS (
            SELECT FROM refold.erased_events AS e WHERE e.renamed AND e.mac = refold.erasure_mac(n.event_id) OFFSET 0)
    ) THEN
        RAISE EXCEPTION 'an event of this statement was erased' USING
            ERRCODE = 'unique_violation', CONSTRAINT = 'event_ids_pkey',
            HINT = 'Use refold.append, which answers for each event: it is a duplicate, and nothing of it is kept.';
    END IF;
    INSERT INTO refold.event_ids (event_id, digest, position)
    SELECT n.event_id, refold.digest(n.user_id, n.action, n.ts, n.metadata, n.version), n.position
    FROM arrived AS n
    ORDER BY n.event_id;
    GET DIAGNOSTICS many = ROW_COUNT;
    -- The ids of purged events are in the cold ledger. Look there after the insert: an id that leaves the ledger meanwhile
    -- is in its bucket for this statement, whose snapshot is newer. An older snapshot (REPEATABLE READ) may not show the
    -- bucket, but then it shows the id in the ledger still, beside the new one.
    IF EXISTS (SELECT FROM refold.cold_ids) THEN
        SELECT c.event_id INTO stranger
        FROM refold.archived_ids(ARRAY(SELECT n.event_id FROM arrived AS n)) AS c LIMIT 1;
    END IF;
    IF stranger IS NULL AND current_setting('transaction_isolation') <> 'read committed' THEN
        SELECT k.event_id INTO stranger
        FROM arrived AS n
        CROSS JOIN LATERAL (
            SELECT o.event_id FROM refold.event_ids AS o
            WHERE o.event_id = n.event_id AND o.position <> n.position OFFSET 0) AS k
        LIMIT 1;
    END IF;
    IF stranger IS NOT NULL THEN
        RAISE EXCEPTION 'duplicate key value violates unique constraint "event_ids_pkey"'
            USING ERRCODE = 'unique_violation', SCHEMA = 'refold', TABLE = 'event_ids', CONSTRAINT = 'event_ids_pkey',
                  DETAIL = 'The archive has an event with the id ' || quote_literal(stranger) || '.';
    END IF;
    -- Record large statements, by which room is prepared for the next (refold.room_wanted); others cost one comparison.
    IF many >= 1000 THEN
        INSERT INTO refold.batches (events)
        SELECT many FROM refold.settings AS s WHERE many >= s.segment_size / 20;
    END IF;
    -- The context (W3C Trace Context) of a sampled trace, by SET LOCAL. Anything else is ignored: a trace must never cost
    -- a producer an event. It is no part of an event, or a retry in another trace would be a conflict.
    context := current_setting('refold.traceparent', true);
    IF context <> '' AND many > 0 THEN
        IF octet_length(context) = 55 OR (octet_length(context) BETWEEN 56 AND 512 AND NOT starts_with(context, '00')) THEN
            parts := regexp_match(context,
                '^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f][13579bdf](?:-.*)?$');
        END IF;
        IF parts IS NOT NULL THEN
            BEGIN
                INSERT INTO refold.traces (txid, position, first_position, events, trace_id, span_id)
                SELECT pg_current_xact_id(), max(n.position), min(n.position), many,
                       parts[1]::uuid, ('x' || parts[2])::bit(64)::bigint
                FROM arrived AS n;
            EXCEPTION WHEN undefined_table OR insufficient_privilege THEN
                NULL;
            END;
        END IF;
    END IF;
    RETURN NULL;
END
$$;
