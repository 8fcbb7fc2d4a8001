-- Events of many callers in one statement, and so in one transaction: group commit. Each has its own source and line,
-- for what is rejected. An event that was refused before it came here has its reason and its raw text with it.
CREATE OR REPLACE FUNCTION refold.append_group(
    event_ids text[], user_ids text[], actions text[], times timestamptz[], metadata jsonb[], versions integer[],
    reasons text[], raws text[], sources text[], lines bigint[]
) RETURNS TABLE (answer text, reason text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT * FROM refold.admit_parsed(ARRAY(
            -- Nothing is the empty text, which no field can be: what NULL means in an array is the session's to say.
            SELECT ROW(o.ordinal, nullif(o.event_id, ''), nullif(o.user_id, ''), o.action, o.ts, o.metadata, o.version,
                       nullif(o.reason, ''))::refold.parsed_event
            FROM ROWS FROM (
                unnest(append_group.event_ids), unnest(append_group.user_ids), unnest(append_group.actions),
                unnest(append_group.times), unnest(append_group.metadata), unnest(append_group.versions),
                unnest(append_group.reasons)
            ) WITH ORDINALITY AS o (event_id, user_id, action, ts, metadata, version, reason, ordinal)
        ))
    LOOP
        IF one.answer IN ('conflict', 'invalid') THEN
            PERFORM refold.reject(
                append_group.sources[one.ordinal], append_group.lines[one.ordinal], one.answer, one.reason,
                CASE
                    WHEN append_group.reasons[one.ordinal] <> '' THEN append_group.raws[one.ordinal]
                    ELSE jsonb_build_object(
                        'id', append_group.event_ids[one.ordinal],
                        'user_id', nullif(append_group.user_ids[one.ordinal], ''),
                        'action', append_group.actions[one.ordinal],
                        'ts', append_group.times[one.ordinal],
                        'metadata', append_group.metadata[one.ordinal],
                        'version', append_group.versions[one.ordinal])::text
                END);
        END IF;
        answer := one.answer; reason := one.reason;
        RETURN NEXT;
    END LOOP;
END
$$;

COMMENT ON FUNCTION refold.append_group(
    text[], text[], text[], timestamptz[], jsonb[], integer[], text[], text[], text[], bigint[])
IS 'Appends events of many callers in one transaction, each with its own source and line, and answers for each.';
