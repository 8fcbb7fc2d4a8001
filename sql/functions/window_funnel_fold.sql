-- What a funnel keeps of a key's events, brought up to date with further events: constant in size, and enough to go on
-- from, so that a key with a long history costs no more than one with a short one.
--
-- Arguments: what is kept (NULL: nothing yet); string_agg(refold.window_funnel_event(…), '') of the further events; how
-- many steps the funnel has; whether refold.window_funnel_times is wanted too; how many events stay as they are. The
-- answer is NULL where what is kept is not enough: then all events of the key have to be folded at once.
--
-- It is a function of the set of events, not of how they came: an audit compares it with the one of the whole log. A
-- funnel whose last step was reached keeps its level alone, for nothing can change it. Any other keeps
--   the latest events themselves: as many instants as it takes for 32 events. Further ones may stand among them in any
--       order, and at their instants; whoever has fewer is never read again from the log.
--   of all earlier ones only open_until (see refold.window_funnel_scan), and until when they went. What comes that far
--       late is answered with NULL.
--   the times of the best chain. Only an event before its end or a higher level can change them, and the level rises
--       as often as there are steps: then NULL, unless all events are here.
--
-- Bytes: the level (1) | how many open_until there are, 255 for no earlier events (1) | times (8 each) | the last
-- earlier instant (8), open_until (8 each) | the latest events (20 each, see refold.window_funnel_event).
CREATE OR REPLACE FUNCTION refold.window_funnel_fold(
    kept bytea, events bytea, steps integer, times boolean, latest_events integer DEFAULT 32
) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    none CONSTANT integer := 255;
    level integer := 0;
    chain bytea := '';
    folded bytea := '';         -- the last earlier instant, and open_until
    folded_upto bigint;
    open_until bigint[] := '{}';
    latest bytea := '';
    whole boolean;              -- whether all events of the key are here
    bits varbit;
    header integer := 2;
    ts bigint;
    last bigint;
    earliest bigint;
    in_order boolean := true;
    cut integer;
    chain_may_change boolean;
    best timestamptz[];
BEGIN
    IF kept IS NOT NULL THEN
        level := get_byte(kept, 0);
        IF events IS NULL OR level = steps AND NOT times THEN
            RETURN kept;
        END IF;
        IF times THEN
            chain := substr(kept, 3, 8 * level);
            header := header + 8 * level;
        END IF;
        IF get_byte(kept, 1) <> none THEN
            folded := substr(kept, header + 1, 8 + 8 * get_byte(kept, 1));
            header := header + length(folded);
            bits := ('x' || encode(folded, 'hex'))::varbit;
            folded_upto := substring(bits, 1, 64)::bit(64)::bigint;
            FOR start IN 65..length(bits) BY 64 LOOP
                open_until := open_until || substring(bits, start, 64)::bit(64)::bigint;
            END LOOP;
        END IF;
        latest := substr(kept, header + 1);
        IF latest <> '' THEN
            last := ('x' || encode(substr(latest, length(latest) - 19, 8), 'hex'))::bit(64)::bigint;
        END IF;
    ELSIF events IS NULL THEN
        RETURN '\x00ff';
    END IF;

    bits := ('x' || encode(events, 'hex'))::varbit;
    FOR start IN 1..length(bits) BY 160 LOOP
        ts := substring(bits, start, 64)::bit(64)::bigint;
        in_order := in_order AND ts > coalesce(last, ts - 1);
        earliest := least(earliest, ts);
        last := ts;
    END LOOP;
    -- From here on the chain can only be another if it can end later, or begin otherwise.
    IF chain <> '' THEN
        chain_may_change := earliest < ('x' || encode(substr(chain, length(chain) - 7), 'hex'))::bit(64)::bigint;
    END IF;
    IF level = steps THEN
        RETURN CASE WHEN NOT chain_may_change THEN kept END;
    ELSIF earliest <= folded_upto THEN
        RETURN NULL;
    END IF;

    whole := folded_upto IS NULL;
    events := latest || events;
    IF NOT in_order THEN
        events := refold.window_funnel_reduced(events);
    END IF;
    latest := events;
    cut := length(events) / 20 - latest_events;
    IF cut > 0 THEN
        -- Instants stay whole: what else happens at one competes with its events for the steps.
        WHILE cut > 0 AND substr(events, 20 * cut - 19, 8) = substr(events, 20 * cut + 1, 8) LOOP
            cut := cut - 1;
        END LOOP;
    END IF;
    IF cut > 0 THEN
        open_until := (refold.window_funnel_scan(substr(events, 1, 20 * cut), 0, open_until)).open_until;
        folded := substr(events, 20 * cut - 19, 8);
        FOR step IN 1..cardinality(open_until) LOOP
            folded := folded || int8send(open_until[step]);
        END LOOP;
        latest := substr(events, 20 * cut + 1);
    END IF;

    cut := cardinality((refold.window_funnel_scan(latest, 0, open_until)).open_until);
    IF times AND (cut <> level OR chain_may_change) THEN
        IF NOT whole THEN
            RETURN NULL;
        END IF;
        chain := '';
        best := refold.window_funnel_chain(events);
        FOR step IN 1..cut LOOP
            chain := chain || timestamptz_send(best[step]);
        END LOOP;
    END IF;
    level := cut;
    IF level = steps THEN
        folded := '';
        latest := '';
    END IF;
    RETURN set_byte(set_byte('\x0000', 0, level), 1, CASE folded WHEN '' THEN none ELSE length(folded) / 8 - 1 END)
        || chain || folded || latest;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_fold(bytea, bytea, integer, boolean, integer)
    IS 'What a funnel keeps of the events of a key, with further events; NULL where all have to be folded at once.';
