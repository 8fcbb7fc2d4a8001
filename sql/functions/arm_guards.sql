-- The guards of the log and the ledger must fire in every replication role of a session (ENABLE ALWAYS). `pg_restore
-- --disable-triggers` leaves them as ordinary triggers, and segments of an older version have ordinary ones too.
CREATE OR REPLACE FUNCTION refold.arm_guards() RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog
AS $$
DECLARE
    guard record;
    armed integer := 0;
BEGIN
    FOR guard IN
        SELECT t.tgrelid::regclass AS relation, t.tgname AS name,
               CASE t.tgname WHEN 'refuse_replicated' THEN 'REPLICA' ELSE 'ALWAYS' END AS role
        FROM pg_trigger AS t
        WHERE t.tgname IN ('a_register_event_ids', 'b_check_contracts', 'b_notify_sleepers', 'refuse_forgery', 'refuse_change', 'refuse_change_of_row',
                           'refuse_replicated', 'within_limits')
          AND t.tgenabled <> CASE t.tgname WHEN 'refuse_replicated' THEN 'R' ELSE 'A' END
          AND (t.tgrelid IN ('refold.events'::regclass, 'refold.event_ids'::regclass, 'refold.cold_ids'::regclass)
               OR t.tgrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'refold.events'::regclass))
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE %s TRIGGER %I', guard.relation, guard.role, guard.name);
        armed := armed + 1;
    END LOOP;
    RETURN armed;
END
$$;

COMMENT ON FUNCTION refold.arm_guards() IS 'Make the guards of the log fire in every replication role, and return how many did not.';
