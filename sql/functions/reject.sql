-- Store input that was rejected. The same input again (a retry, a second run of a file) is counted, not stored twice. A
-- source that is too long for the index is stored as its start and its hash: otherwise an error here would also reject the
-- valid events of the call.
CREATE OR REPLACE FUNCTION refold.reject(
    source text, line bigint, answer text, reason text, raw text
) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
INSERT INTO refold.rejected AS kept (source, line, answer, reason, raw)
VALUES (
    CASE WHEN char_length(reject.source) <= 255 THEN reject.source
         ELSE left(reject.source, 222) || ' ' || md5(reject.source) END,
    reject.line, reject.answer, reject.reason, reject.raw)
ON CONFLICT (source, line, answer, md5(raw))
    DO UPDATE SET times = kept.times + 1, last_seen = now(), reason = EXCLUDED.reason
$$;

COMMENT ON FUNCTION refold.reject(text, bigint, text, text, text)
    IS 'Store rejected input with its raw text, reason, source and line.';
