-- The events of a funnel in order of time, without those that cannot change the result. The output depends only on the set
-- of events.
--
-- A chain takes each step once. So of the events of an instant that match the same steps it takes as many as there are
-- steps at most, and the others are left out: an instant shared by thousands stays small. An instant has one deadline,
-- as in refold.window_funnel_resolve.
CREATE OR REPLACE FUNCTION refold.window_funnel_reduced(events bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
DECLARE
    bits CONSTANT varbit := ('x' || encode(events, 'hex'))::varbit;
BEGIN
    RETURN (
        SELECT string_agg(
            int8send(g.ts) || int4send(g.code) || int8send(CASE WHEN g.first_step THEN g.deadline ELSE g.ts END), ''
            ORDER BY g.ts, g.code)
        FROM (
            SELECT
                e.ts, e.code, e.first_step, count(*) AS events,
                max(max(e.deadline) FILTER (WHERE e.first_step)) OVER (PARTITION BY e.ts) AS deadline
            FROM (
                SELECT
                    r.ts, r.code, r.deadline, r.code = 1 OR r.code < 0 AND -r.code & 1 = 1 AS first_step
                FROM (
                    SELECT
                        substring(bits, start, 64)::bit(64)::bigint AS ts,
                        substring(bits, start + 64, 32)::bit(32)::integer AS code,
                        substring(bits, start + 96, 64)::bit(64)::bigint AS deadline
                    FROM generate_series(1, length(bits), 160) AS start
                ) AS r
            ) AS e
            GROUP BY e.ts, e.code, e.first_step
        ) AS g,
        generate_series(1, least(g.events, CASE WHEN g.code > 0 THEN 1 ELSE bit_count((-g.code)::bit(32)) END))
    );
END
$$;

COMMENT ON FUNCTION refold.window_funnel_reduced(bytea)
    IS 'Return the events of a funnel by time, and of each instant no more than a chain can take.';
