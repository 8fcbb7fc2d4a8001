-- The state of a funnel for a key, updated with further events. Its size is constant and it suffices for later updates, so
-- that a key with a long history costs no more than a key with a short one.
--
-- Arguments: the state (NULL: none yet); string_agg(refold.window_funnel_event(…), '') of the further events; the number of
-- steps of the funnel; whether refold.window_funnel_times is needed too; the number of latest events to keep. The result is
-- NULL if the state does not suffice: then all events of the key must be folded at once.
--
-- The state depends on the set of events and not on their order, because an audit compares it with the state of the whole
-- log. A completed funnel keeps only its level, which no event can change. Any other keeps
--   open_until, up to now (see refold.window_funnel_scan): as many as the level.
--   the latest events themselves: the latest instants that have 32 events together. Further events may come among them in
--       any order, and at their instants; a key with fewer events is never read again from the log.
--   of all earlier events only open_until, and the last instant of them. For an event before that the result is NULL.
--   the times of the best chain. Only an event before its end or a higher level can change them. The level rises at most
--       once for each step: then the result is NULL, unless the chain began with one of the latest events.
--
-- Bytes: the level (1) | number of open_until before the latest events, 255 without earlier events (1) |
-- times (8 each) | open_until (8 each) | the last earlier instant and open_until of then (8 each) | the latest events
-- (20 each, see refold.window_funnel_event).
CREATE OR REPLACE FUNCTION refold.window_funnel_fold(
    kept bytea, events bytea, steps integer, times boolean, latest_events integer DEFAULT 32
) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    none CONSTANT integer := 255;
    level integer := 0;
    chain bytea := '';
    earlier bytea := '';        -- the last earlier instant, and open_until of then
    earlier_upto bigint;
    open_before bigint[] := '{}';
    open_until bigint[] := '{}';
    latest bytea := '';
    whole boolean := true;      -- whether all events of the key are here
    bits varbit;
    at integer;
    ts bigint;
    last bigint;
    earliest bigint;
    in_order boolean := true;
    chain_may_change boolean;
    cut integer;
    best timestamptz[];
    scanned record;
BEGIN
    IF kept IS NULL THEN
        IF events IS NULL THEN
            RETURN decode('00ff', 'hex');
        END IF;
    ELSE
        level := get_byte(kept, 0);
        IF events IS NULL OR level = steps AND NOT times THEN
            RETURN kept;
        END IF;
        at := 3;
        IF times THEN
            chain := substr(kept, at, 8 * level);
            at := at + 8 * level;
        END IF;
        bits := ('x' || encode(events, 'hex'))::varbit;
        FOR start IN 1..length(bits) BY 160 LOOP
            ts := substring(bits, start, 64)::bit(64)::bigint;
            in_order := in_order AND (last IS NULL OR ts > last);
            IF ts < earliest IS NOT FALSE THEN
                earliest := ts;
            END IF;
            last := ts;
        END LOOP;
        -- From its end on, the chain can only be another if it is longer.
        IF chain <> '' THEN
            chain_may_change := earliest < ('x' || encode(substr(chain, 8 * level - 7), 'hex'))::bit(64)::bigint;
        END IF;
        IF level = steps THEN
            RETURN CASE WHEN NOT chain_may_change THEN kept END;
        END IF;
        cut := get_byte(kept, 1);
        whole := cut = none;
        IF level > 0 OR NOT whole THEN
            -- Both open_until, and the instant between them.
            latest := substr(kept, at + 8 * level + CASE WHEN whole THEN 0 ELSE 8 + 8 * cut END);
            bits := ('x' || encode(substr(kept, at, length(kept) - length(latest) - at + 1), 'hex'))::varbit;
            FOR step IN 1..level LOOP
                open_until[step] := substring(bits, 64 * step - 63, 64)::bit(64)::bigint;
            END LOOP;
            IF NOT whole THEN
                earlier_upto := substring(bits, 64 * level + 1, 64)::bit(64)::bigint;
                IF earliest <= earlier_upto THEN
                    RETURN NULL;
                END IF;
                FOR step IN 1..cut LOOP
                    open_before[step] := substring(bits, 64 * (level + step) + 1, 64)::bit(64)::bigint;
                END LOOP;
                earlier := substr(kept, at + 8 * level, 8 + 8 * cut);
            END IF;
        ELSE
            latest := substr(kept, at);
        END IF;
        IF latest <> '' THEN
            in_order := in_order
                AND earliest > ('x' || encode(substr(latest, length(latest) - 19, 8), 'hex'))::bit(64)::bigint;
        END IF;
    END IF;

    IF kept IS NULL THEN
        scanned := refold.window_funnel_scan(events);
        IF scanned.disordered THEN
            events := refold.window_funnel_reduced(events);
        END IF;
    ELSIF in_order THEN
        scanned := refold.window_funnel_scan(events, 0, open_until);
        events := latest || events;
    ELSE
        events := refold.window_funnel_reduced(latest || events);
        scanned := refold.window_funnel_scan(events, 0, open_before);
    END IF;
    open_until := scanned.open_until;

    IF times AND (cardinality(open_until) <> level OR chain_may_change) THEN
        IF cardinality(open_until) = 1 THEN
            -- The first event that opens a window; the scan has met it, for there was none before.
            chain := int8send(scanned.reached[1]);
        ELSE
            -- The chain may have begun with an earlier event, if a window that opened then is open yet.
            IF open_before[1] >= ('x' || encode(substr(events, 1, 8), 'hex'))::bit(64)::bigint THEN
                RETURN NULL;
            END IF;
            chain := '';
            best := refold.window_funnel_chain(events);
            FOR step IN 1..cardinality(best) LOOP
                chain := chain || timestamptz_send(best[step]);
            END LOOP;
        END IF;
    END IF;
    level := cardinality(open_until);
    IF level = steps THEN
        RETURN set_byte(decode('00ff', 'hex'), 0, level) || chain;
    END IF;

    latest := events;
    cut := length(events) / 20 - latest_events;
    IF cut > 0 THEN
        -- Instants stay whole: what else happens at one competes with its events for the steps.
        WHILE cut > 0 AND substr(events, 20 * cut - 19, 8) = substr(events, 20 * cut + 1, 8) LOOP
            cut := cut - 1;
        END LOOP;
        IF cut > 0 THEN
            open_before := (refold.window_funnel_scan(substr(events, 1, 20 * cut), 0, open_before)).open_until;
            earlier := substr(events, 20 * cut - 19, 8);
            FOR step IN 1..cardinality(open_before) LOOP
                earlier := earlier || int8send(open_before[step]);
            END LOOP;
            latest := substr(events, 20 * cut + 1);
        END IF;
    END IF;
    kept := set_byte(decode('00ff', 'hex'), 0, level) || chain;
    IF earlier <> '' THEN
        kept := set_byte(kept, 1, length(earlier) / 8 - 1);
    END IF;
    FOR step IN 1..level LOOP
        kept := kept || int8send(open_until[step]);
    END LOOP;
    RETURN kept || earlier || latest;
END
$$;

COMMENT ON FUNCTION refold.window_funnel_fold(bytea, bytea, integer, boolean, integer)
    IS 'Return the state of a funnel for a key with further events; NULL if all events must be folded at once.';
