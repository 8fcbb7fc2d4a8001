-- Removes the events after the first completion of the whole funnel, if they are at least half of all.
--
-- Exact, whatever events follow: the level cannot grow any more, and the chain of refold.window_funnel_times
-- ends at the first completion (see refold.window_funnel_chain), which further rows can only make earlier.
CREATE OR REPLACE FUNCTION refold.window_funnel_prune(events bytea, steps integer) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
DECLARE
    completed bigint := (refold.window_funnel_scan(events)).reached[steps];
    kept bytea;
BEGIN
    IF completed IS NULL THEN
        RETURN events;
    END IF;
    SELECT string_agg(e.event, '')
    INTO kept
    FROM (
        SELECT substr(events, start, 20) FROM generate_series(1, length(events), 20) AS start
    ) AS e (event)
    WHERE ('x' || encode(substr(e.event, 1, 8), 'hex'))::bit(64)::bigint <= completed;
    RETURN CASE WHEN 2 * length(kept) <= length(events) THEN kept ELSE events END;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_prune(bytea, integer)
    IS 'Return the events of a funnel without those after its first completion.';
