-- A cursor never moves backwards, whatever moves it: superset(new, old) as in refold.cursor.Snapshot.includes.
CREATE OR REPLACE FUNCTION refold.guard_cursor() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF pg_snapshot_xmax(OLD.done) > pg_snapshot_xmax(NEW.done)
       OR EXISTS (
           SELECT FROM pg_snapshot_xip(NEW.done) AS open (txid)
           WHERE open.txid < pg_snapshot_xmax(OLD.done)
             AND open.txid NOT IN (SELECT pg_snapshot_xip(OLD.done))
       ) THEN
        RAISE EXCEPTION 'the cursor of build % would move backwards, from % to %', OLD.table_name, OLD.done, NEW.done
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Its events would be counted twice. Rebuild instead: refold rebuild ' || OLD.projection;
    END IF;
    RETURN NEW;
END
$$;
