-- Create a segment of the log beside it, and attach it: CREATE … PARTITION OF would wait for every open writer.
CREATE OR REPLACE FUNCTION refold.create_segment(lower_position bigint, upper_position bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = refold, pg_catalog, pg_temp
-- A producer's session may create segments too, and its settings must not change how they look.
SET default_tablespace = ''
SET default_table_access_method = heap
AS $$
DECLARE
    segment CONSTANT text := format('events_%s', lpad(lower_position::text, 15, '0'));
BEGIN
    EXECUTE format('CREATE TABLE refold.%I (LIKE refold.events INCLUDING ALL EXCLUDING IDENTITY EXCLUDING COMMENTS)', segment);
    EXECUTE format(
        'CREATE TRIGGER refuse_change BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON refold.%I
         FOR EACH STATEMENT EXECUTE FUNCTION refold.refuse_change()', segment);
    EXECUTE format('ALTER TABLE refold.%I ENABLE ALWAYS TRIGGER refuse_change', segment);
    EXECUTE format('ALTER TABLE refold.events ATTACH PARTITION refold.%I FOR VALUES FROM (%s) TO (%s)',
                   segment, lower_position, upper_position);
END
$$;

COMMENT ON FUNCTION refold.create_segment(bigint, bigint) IS 'Create a segment of the log for a range of positions.';
