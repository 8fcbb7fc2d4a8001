-- Sorted events of a funnel, in which the events of an instant that compete for steps are replaced by equivalent single
-- steps (refold.window_funnel_instant).
--
-- An instant has one deadline, the latest of its step 1 events. They differ only if "window" differs between rows.
CREATE OR REPLACE FUNCTION refold.window_funnel_resolve(events bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
DECLARE
    bits CONSTANT varbit := ('x' || encode(events, 'hex'))::varbit;
BEGIN
    RETURN (
        SELECT string_agg(
            int8send(instant.ts) || int4send(step.code) || int8send(instant.deadline), ''
            ORDER BY instant.ts, step.ordinal)
        FROM (
            SELECT
                e.ts,
                array_agg(e.code ORDER BY e.start) AS codes,
                coalesce(max(e.deadline) FILTER (WHERE e.code = 1 OR e.code < 0 AND -e.code & 1 = 1), e.ts) AS deadline
            FROM (
                SELECT
                    start,
                    substring(bits, start, 64)::bit(64)::bigint AS ts,
                    substring(bits, start + 64, 32)::bit(32)::integer AS code,
                    substring(bits, start + 96, 64)::bit(64)::bigint AS deadline
                FROM generate_series(1, length(bits), 160) AS start
            ) AS e
            GROUP BY e.ts
        ) AS instant,
        unnest(
            CASE
                WHEN cardinality(instant.codes) > 1 AND 0 > ANY (instant.codes)
                THEN refold.window_funnel_instant(instant.codes)
                ELSE instant.codes
            END
        ) WITH ORDINALITY AS step (code, ordinal)
    );
END
$$;

COMMENT ON FUNCTION refold.window_funnel_resolve(bytea)
    IS 'Return sorted events of a funnel in which no event of several steps shares its instant with another event.';
