-- The steps to take one after the other at an instant whose events match several steps each.
--
-- Arguments: the codes of the instant's events. Result: single steps for refold.window_funnel_scan which take
-- a chain from level j to level m exactly when distinct events of this instant match steps j+1 … m.
--
-- For every j the furthest such m is found by bipartite matching with augmenting paths (Kuhn 1955, breadth
-- first). What is matched for j serves j+1 too, without step j+1: m never falls. The runs j+1 … m are given
-- for j downwards: each then starts from a level that nothing at this instant has touched yet, and no event
-- serves twice.
CREATE OR REPLACE FUNCTION refold.window_funnel_instant(codes integer[]) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
DECLARE
    masks integer[];
    steps integer := 0;     -- the last one that any event matches
    step_of integer[];      -- by event: the step it serves
    event_of integer[];     -- by step: the event that serves it
    seen_from integer[];    -- by event: the step from which this search came upon it
    queue integer[];        -- steps that look for an event
    step integer;
    event integer;
    displaced integer;
    head integer;
    reach integer := 0;     -- m
    runs integer[] := '{}';
BEGIN
    FOR position IN 1..cardinality(codes) LOOP
        masks[position] := CASE WHEN codes[position] < 0 THEN -codes[position] ELSE 1 << (codes[position] - 1) END;
        WHILE masks[position] >> steps > 0 LOOP
            steps := steps + 1;
        END LOOP;
    END LOOP;
    FOR level IN 0..steps - 1 LOOP
        IF level > 0 AND level <= reach THEN
            step_of[event_of[level]] := NULL;
        END IF;
        reach := greatest(reach, level);
        <<further>>
        WHILE reach < steps LOOP
            seen_from := NULL;
            queue := ARRAY[reach + 1];
            head := 1;
            event := NULL;
            <<search>>
            WHILE head <= cardinality(queue) LOOP
                step := queue[head];
                head := head + 1;
                FOR candidate IN 1..cardinality(masks) LOOP
                    CONTINUE WHEN masks[candidate] & (1 << (step - 1)) = 0 OR seen_from[candidate] IS NOT NULL;
                    seen_from[candidate] := step;
                    IF step_of[candidate] IS NULL THEN
                        event := candidate;
                        EXIT search;
                    END IF;
                    queue := queue || step_of[candidate];
                END LOOP;
            END LOOP;
            EXIT further WHEN event IS NULL;
            -- Along the path back, every step takes the event that it came upon and gives up the one it had.
            LOOP
                step := seen_from[event];
                displaced := event_of[step];
                event_of[step] := event;
                step_of[event] := step;
                EXIT WHEN step = reach + 1;
                event := displaced;
            END LOOP;
            reach := reach + 1;
        END LOOP;
        FOR taken IN REVERSE reach..level + 1 LOOP
            runs := array_prepend(taken, runs);
        END LOOP;
    END LOOP;
    RETURN runs;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_instant(integer[])
    IS 'Return single steps that replace the events of an instant, some of which match several steps of a funnel.';
