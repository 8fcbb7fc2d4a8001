-- The code of an event that matches several steps: minus their bit mask (step 1 is bit 0).
-- Slow, and rarely called: the code of the usual event, which matches one step, is the step itself.
CREATE OR REPLACE FUNCTION refold.window_funnel_code(steps boolean[]) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
DECLARE
    mask integer := 0;
BEGIN
    -- A code is four bytes, one of its bits the sign.
    IF cardinality(steps) > 31 THEN
        RAISE EXCEPTION 'a funnel has at most 31 steps, not %', cardinality(steps)
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    FOR step IN 1..cardinality(steps) LOOP
        IF steps[step] THEN
            mask := mask | (1 << (step - 1));
        END IF;
    END LOOP;
    RETURN -mask;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_code(boolean[])
    IS 'Return the code of an event that matches several steps of a funnel: minus their bit mask.';
