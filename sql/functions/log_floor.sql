-- The first position of the log that was not purged. Segments leave from the lowest on, so that one number tells.
CREATE OR REPLACE FUNCTION refold.log_floor() RETURNS bigint
LANGUAGE sql STABLE
AS $$
SELECT coalesce(
    (SELECT a.upper_position FROM refold.archives AS a WHERE a.state = 'purged' ORDER BY a.lower_position DESC LIMIT 1), 1)
$$;

COMMENT ON FUNCTION refold.log_floor() IS 'Return the first position of the log whose segment was not purged.';
