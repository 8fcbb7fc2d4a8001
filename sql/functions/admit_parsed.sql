-- Store each new event of parsed ones once, and answer for every event. Rejected events are not recorded here: the
-- caller does that, because it knows their source and line (see refold.append).
--
-- The lookup and the insert are two statements, and a racing transaction may win in between. The ledger's
-- unique key then says so *after the winner has committed*, and the next round's lookup sees it.
CREATE OR REPLACE FUNCTION refold.admit_parsed(parsed refold.parsed_event[])
RETURNS TABLE (ordinal integer, event_id text, answer text, reason text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
-- A session keeps its plans, maybe from when tables were empty. So one plan serves all calls, and looks up by indexes alone;
-- OFFSET 0 keeps a lookup from being joined in another way.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    stored integer[];
    same integer[] := '{}';
    erased integer[] := '{}';
    rounds integer := 0;
    violated text;
    many CONSTANT integer := cardinality(parsed);
    seem_new boolean := false;
    archived text[];
    rehashed boolean := false;
BEGIN
    PERFORM refold.ensure_room(coalesce(many, 0));
    -- A large call whose events seem to be new is stored without a look at each. The ledger refuses it as a whole if it
    -- knows one after all, at half the cost of the call; what sixteen of the ids show is a call that comes again.
    IF many >= 64 THEN
        SELECT NOT EXISTS (
            SELECT FROM generate_series(1, many, greatest(many / 16, 1)) AS at
            WHERE EXISTS (SELECT FROM refold.event_ids AS known WHERE known.event_id = (parsed[at]).event_id OFFSET 0)
        ) AND NOT EXISTS (
            SELECT FROM refold.archived_ids(ARRAY(
                SELECT (parsed[at]).event_id FROM generate_series(1, many, greatest(many / 16, 1)) AS at
                WHERE EXISTS (SELECT FROM refold.cold_ids)))
        ) INTO seem_new;
    END IF;
    IF seem_new THEN
        BEGIN
            INSERT INTO refold.events (event_id, user_id, action, ts, metadata, version)
            SELECT p.event_id, p.user_id, p.action, p.ts, p.metadata, p.version
            FROM unnest(parsed) AS p
            WHERE p.reason IS NULL
            ORDER BY p.ordinal;
            RETURN QUERY
            SELECT p.ordinal, p.event_id, CASE WHEN p.reason IS NULL THEN 'accepted' ELSE 'invalid' END, p.reason
            FROM unnest(parsed) AS p;
            RETURN;
        EXCEPTION WHEN unique_violation OR check_violation THEN
            GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
            IF violated = 'events_contract' THEN
                parsed := refold.judge(parsed);
            END IF;
        END;
    END IF;
    LOOP
        -- Erased events whose ids the ledger must not keep.
        IF EXISTS (SELECT FROM refold.erased_events AS e WHERE e.renamed) THEN
            SELECT coalesce(array_agg(p.ordinal), '{}') INTO erased
            FROM unnest(parsed) AS p
            WHERE p.reason IS NULL AND EXISTS (
                SELECT FROM refold.erased_events AS e
                WHERE e.renamed AND e.mac = refold.erasure_mac(p.event_id) OFFSET 0);
        END IF;
        BEGIN
            IF EXISTS (SELECT FROM refold.cold_ids) THEN
                archived := ARRAY(
                    SELECT a.event_id
                    FROM refold.archived_ids(ARRAY(SELECT p.event_id FROM unnest(parsed) AS p WHERE p.reason IS NULL)) AS a);
            END IF;
            WITH fresh AS (
                -- Of several events with the same id in this call, the first is stored.
                SELECT DISTINCT ON (p.event_id) p.*
                FROM unnest(parsed) AS p
                WHERE p.reason IS NULL
                  AND NOT EXISTS (SELECT FROM refold.event_ids AS known WHERE known.event_id = p.event_id OFFSET 0)
                  AND p.ordinal <> ALL (erased)
                  -- NOT IN: it is hashed. A join would compare each event with each archived one of a call that comes again.
                  AND p.event_id NOT IN (SELECT a.event_id FROM unnest(archived) AS a (event_id))
                ORDER BY p.event_id, p.ordinal
            ),
            registered AS (
                INSERT INTO refold.events (event_id, user_id, action, ts, metadata, version)
                SELECT f.event_id, f.user_id, f.action, f.ts, f.metadata, f.version
                FROM fresh AS f
                ORDER BY f.ordinal
            )
            SELECT array_agg(f.ordinal) INTO stored FROM fresh AS f;
            EXIT;
        EXCEPTION WHEN unique_violation THEN
            rounds := rounds + 1;
            IF rounds > 100 OR current_setting('transaction_isolation') <> 'read committed' THEN
                RAISE EXCEPTION 'another transaction has just appended an event of this call'
                    USING ERRCODE = 'serialization_failure',
                          HINT = 'Retry the whole transaction; READ COMMITTED resolves such races by itself.';
            END IF;
        WHEN check_violation THEN
            -- A row without a segment violates no named constraint: other transactions have drawn the positions that
            -- were free a moment ago.
            GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
            rounds := rounds + 1;
            IF violated NOT IN ('', 'events_contract') OR rounds > 100 THEN
                RAISE;
            ELSIF violated = '' THEN
                PERFORM refold.ensure_segments(cardinality(parsed)::bigint * (rounds + 1));
            ELSE
                parsed := refold.judge(parsed);
            END IF;
        END;
    END LOOP;
    IF coalesce(cardinality(stored), 0) = coalesce(cardinality(parsed), 0) THEN
        RETURN QUERY SELECT p.ordinal, p.event_id, 'accepted'::text, NULL::text FROM unnest(parsed) AS p;
        RETURN;
    END IF;
    IF (SELECT s.hash_probe <> refold.hash_probe() FROM refold.settings AS s WHERE s.singleton) THEN
        -- The digests in the ledger are those of another server (after pg_upgrade, until `refold recover`): compare
        -- with the content in the log.
        rehashed := true;
        SELECT coalesce(array_agg(p.ordinal), '{}') INTO same
        FROM unnest(parsed) AS p
        CROSS JOIN LATERAL (
            SELECT o.position FROM refold.event_ids AS o WHERE o.event_id = p.event_id OFFSET 0) AS known
        JOIN refold.events AS e ON e.position = known.position AND e.event_id = p.event_id
        WHERE p.reason IS NULL
          AND (e.user_id, e.action, e.ts, e.metadata, e.version)
              IS NOT DISTINCT FROM (p.user_id, p.action, p.ts, p.metadata, p.version);
    END IF;
    RETURN QUERY
    WITH answered AS MATERIALIZED (
        SELECT
            p.ordinal AS ordinal,
            p.event_id AS event_id,
            CASE
                WHEN p.reason IS NOT NULL THEN 'invalid'
                WHEN s.ordinal IS NOT NULL THEN 'accepted'
                -- Of an erased event nothing is kept, and so nothing that comes under its id.
                WHEN known.digest = 0 OR cold.digest = 0 OR p.ordinal = ANY (erased) THEN 'duplicate'
                WHEN lost.event_id IS NOT NULL THEN 'conflict'
                WHEN known.digest = refold.digest(p.user_id, p.action, p.ts, p.metadata, p.version)
                     OR p.ordinal = ANY (same) THEN 'duplicate'
                WHEN known.event_id IS NULL AND cold.digest = refold.cold_digest(
                         refold.digest(p.user_id, p.action, p.ts, p.metadata, p.version)) THEN 'duplicate'
                ELSE 'conflict'
            END AS answer,
            CASE
                WHEN p.reason IS NOT NULL THEN p.reason
                WHEN s.ordinal IS NOT NULL OR known.digest = 0 OR cold.digest = 0 OR p.ordinal = ANY (erased) THEN NULL
                -- The answer `duplicate` would tell the producer that the event is in the log.
                WHEN lost.event_id IS NOT NULL
                    THEN 'the log has lost the event with this id, and the id stays taken: append it under another'
                WHEN known.digest <> refold.digest(p.user_id, p.action, p.ts, p.metadata, p.version)
                     AND p.ordinal <> ALL (same)
                    THEN 'the log holds an event with this id and other content'
                WHEN known.event_id IS NOT NULL THEN NULL
                WHEN cold.digest <> refold.cold_digest(
                         refold.digest(p.user_id, p.action, p.ts, p.metadata, p.version))
                    THEN 'the archive holds an event with this id'
                         || CASE WHEN rehashed THEN ', whose content `refold recover` can compare'
                                 ELSE ' and other content' END
            END AS reason
        FROM unnest(parsed) AS p
        LEFT JOIN unnest(stored) AS s (ordinal) ON s.ordinal = p.ordinal
        LEFT JOIN LATERAL (
            SELECT o.event_id, o.digest FROM refold.event_ids AS o
            WHERE p.reason IS NULL AND o.event_id = p.event_id OFFSET 0) AS known ON true
        -- Both at once: an id that moves to the cold ledger meanwhile is in at least one for each snapshot.
        LEFT JOIN refold.archived_ids(ARRAY(
            SELECT DISTINCT o.event_id FROM unnest(parsed) AS o
            WHERE o.reason IS NULL AND NOT EXISTS (SELECT FROM unnest(stored) AS t (ordinal) WHERE t.ordinal = o.ordinal)
        )) AS cold ON cold.event_id = p.event_id AND p.reason IS NULL
        LEFT JOIN LATERAL (
            SELECT o.event_id FROM refold.lost_events AS o
            WHERE p.reason IS NULL AND o.event_id = p.event_id OFFSET 0) AS lost ON true
    ),
    -- A new row for each call: producers that update the same row would wait for each other.
    counted AS (
        INSERT INTO refold.duplicates (events)
        SELECT count(*) FROM answered AS a WHERE a.answer = 'duplicate' HAVING count(*) > 0
    )
    SELECT a.ordinal, a.event_id, a.answer, a.reason FROM answered AS a ORDER BY a.ordinal;
END
$$;

COMMENT ON FUNCTION refold.admit_parsed(refold.parsed_event[])
    IS 'Store the new ones of parsed events, and answer accepted, duplicate, conflict or invalid for each event.';
