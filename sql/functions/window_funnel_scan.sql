-- The funnel itself: when a chain of each length was first completed.
--
-- Result: reached[k] = the earliest end of a chain of k steps (microseconds since 2000-01-01 UTC), as many as
-- there are levels; the events in the order in which they were taken, for refold.window_funnel_chain; open_until; and
-- whether the rows were anything but one instant after the other (else NULL).
--
-- One pass in order of time. open_until[k] is the latest deadline of all chains of k steps so far. A chain can go on
-- at t exactly if t is not after its deadline, so of two chains of one length the one with the later deadline can do
-- whatever the other can. (ClickHouse and PostHog keep the latest *start*. With months that is not the same: January
-- 30, 12:00 plus a month is after January 31, 11:00 plus a month.) A chain of k steps contains one of k - 1, so
-- open_until never grows with k.
--
-- An event of several steps alone at its instant is taken for its last step first, so that it cannot follow itself.
-- Where it is not alone, it takes a matching, and that is rare: stage 0 is the rows as they came, hopefully in order;
-- 1 sorted by bytes; 2 sorted and resolved.
--
-- The pass can go on where another has ended, if all these events are later than those of that one: give it the
-- open_until that was answered. `reached` has only what is new then, and the level is the length of open_until.
CREATE OR REPLACE FUNCTION refold.window_funnel_scan(
    INOUT events bytea, OUT reached bigint[], IN stage integer DEFAULT 0, INOUT open_until bigint[] DEFAULT '{}',
    OUT disordered boolean
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
AS $$
DECLARE
    bits CONSTANT varbit := ('x' || encode(events, 'hex'))::varbit;
    before CONSTANT bigint[] := open_until;
    level integer := cardinality(open_until);
    ts bigint;
    code integer;
    deadline bigint;
    last_ts bigint;
    last_code integer;
    again record;
BEGIN
    FOR start IN 1..length(bits) BY 160 LOOP
        ts := substring(bits, start, 64)::bit(64)::bigint;
        code := substring(bits, start + 64, 32)::bit(32)::integer;
        IF ts <= last_ts THEN
            disordered := true;
        END IF;
        IF ts <= last_ts AND stage < 2
           AND (ts < last_ts OR code < last_code OR code < 0 OR last_code < 0) THEN
            events := CASE stage WHEN 0 THEN refold.window_funnel_sort(events)
                                 ELSE refold.window_funnel_resolve(events) END;
            again := refold.window_funnel_scan(events, stage + 1, before);
            events := again.events;
            reached := again.reached;
            open_until := again.open_until;
            RETURN;
        END IF;
        FOR step IN REVERSE CASE WHEN code > 0 THEN code ELSE least(level + 1, 31) END..greatest(code, 1) LOOP
            CONTINUE WHEN code < 0 AND -code & (1 << (step - 1)) = 0;
            IF step = 1 THEN
                deadline := substring(bits, start + 96, 64)::bit(64)::bigint;
                CONTINUE WHEN deadline < ts OR deadline <= open_until[1];
                open_until[1] := deadline;
            ELSIF open_until[step - 1] >= ts THEN
                open_until[step] := open_until[step - 1];
            ELSE
                CONTINUE;
            END IF;
            IF step > level THEN
                level := step;
                reached[step] := ts;
            END IF;
        END LOOP;
        last_ts := ts;
        last_code := code;
    END LOOP;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_scan(bytea, integer, bigint[])
    IS 'Return when a chain of each length was first completed (microseconds since 2000-01-01 UTC), and the events in order.';
