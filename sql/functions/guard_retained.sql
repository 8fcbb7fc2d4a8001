-- Slices that a build does not keep any more never come back: its rows are gone, and only a new build reads their events.
CREATE OR REPLACE FUNCTION refold.guard_retained() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.retained_from IS NULL OR NEW.retained_from < OLD.retained_from THEN
        RAISE EXCEPTION 'build % keeps its slices from % on, and would keep earlier ones again',
            OLD.table_name, date '1970-01-01' + OLD.retained_from
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Rebuild instead: refold retain ' || OLD.projection || ' --forever; refold rebuild '
                      || OLD.projection;
    END IF;
    RETURN NEW;
END
$$;
