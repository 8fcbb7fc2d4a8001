-- A cursor never moves backwards, whatever moves it: superset(new, old) as in refold.model.stream.cursor.Snapshot.includes.
-- A new row must follow the newest: a row with a lower number would not count, and its page would be applied again.
CREATE OR REPLACE FUNCTION refold.guard_cursor() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    old_number bigint;
    old_done pg_snapshot;
BEGIN
    SELECT c.number, c.done INTO old_number, old_done
    FROM refold.cursors AS c WHERE c.build_id = NEW.build_id ORDER BY c.number DESC LIMIT 1;
    IF old_number >= NEW.number
       OR pg_snapshot_xmax(old_done) > pg_snapshot_xmax(NEW.done)
       OR EXISTS (
           SELECT FROM pg_snapshot_xip(NEW.done) AS open (txid)
           WHERE open.txid < pg_snapshot_xmax(old_done)
             AND open.txid NOT IN (SELECT pg_snapshot_xip(old_done))
       ) THEN
        RAISE EXCEPTION 'the cursor of build % would move backwards, from % (%) to % (%)',
            (SELECT b.table_name FROM refold.builds AS b WHERE b.build_id = NEW.build_id),
            old_done, old_number, NEW.done, NEW.number
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Its events would be counted twice. Rebuild instead: refold rebuild '
                      || (SELECT b.projection FROM refold.builds AS b WHERE b.build_id = NEW.build_id);
    END IF;
    RETURN NEW;
END
$$;
