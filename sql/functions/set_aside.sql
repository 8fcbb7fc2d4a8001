-- Set a captured row aside that makes no event: a row must never make the application's write fail. The line is 0, so that
-- the same row is counted, and not stored again.
CREATE OR REPLACE FUNCTION refold.set_aside(capture text, reason text, raw text) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM refold.reject('capture:' || capture, 0, 'invalid', reason, left(raw, 1048576));
END
$$;

COMMENT ON FUNCTION refold.set_aside(text, text, text) IS 'Set a captured row aside that makes no event, with the reason.';
