-- Keeps input that did not get in. The same input seen again (a retry, a second run of a file) is counted,
-- not kept twice.
CREATE OR REPLACE FUNCTION refold.set_aside(
    source text, line bigint, answer text, reason text, raw text
) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
INSERT INTO refold.rejected AS kept (source, line, answer, reason, raw)
VALUES (set_aside.source, set_aside.line, set_aside.answer, set_aside.reason, set_aside.raw)
ON CONFLICT (source, line, answer, md5(raw))
    DO UPDATE SET times = kept.times + 1, last_seen = now(), reason = EXCLUDED.reason
$$;

COMMENT ON FUNCTION refold.set_aside(text, bigint, text, text, text)
    IS 'Keeps rejected input with its raw text, reason, source and line.';
