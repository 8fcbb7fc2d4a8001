-- The condition lets through what is certainly within the limits, without calling the function; it implies
-- refold.plain_metadata. It names only functions of Postgres: one of ours would be parsed again by every statement, which
-- costs a statement of one event more than its check.
CREATE OR REPLACE TRIGGER within_limits
BEFORE INSERT ON refold.events
FOR EACH ROW
WHEN (pg_column_compression(NEW.metadata) IS NOT NULL OR pg_column_size(NEW.metadata) > 800
      OR octet_length(NEW.metadata::text) > 2000)
EXECUTE FUNCTION refold.refuse_beyond_limits();
ALTER TABLE refold.events ENABLE ALWAYS TRIGGER within_limits;
