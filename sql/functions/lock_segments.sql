-- Let only one transaction at a time create segments, until it ends. The lock is the one that ATTACH PARTITION takes on
-- the log, and only roles that may change the log can take it. Any login could take an advisory lock, and block every
-- append. Writers and readers of the log do not conflict with the lock.
CREATE OR REPLACE FUNCTION refold.lock_segments(wait boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
DECLARE
    patience text := current_setting('lock_timeout');
    holders text;
BEGIN
    IF NOT wait THEN
        LOCK TABLE ONLY refold.events IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
        RETURN true;
    END IF;
    IF patience = '0' OR patience::interval > interval '30 s' THEN
        -- The holder releases it soon, unless a producer that needed room keeps its transaction open.
        PERFORM set_config('lock_timeout', '30s', true);
    END IF;
    LOCK TABLE ONLY refold.events IN SHARE UPDATE EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', patience, true);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    IF NOT wait THEN
        RETURN false;
    END IF;
    SELECT string_agg(
               coalesce('pid ' || l.pid, 'the prepared transaction ' || p.gid, 'a session')
               || coalesce(' (' || coalesce(a.usename, p.owner)
                           || coalesce(', ' || nullif(a.application_name, ''), '')
                           || coalesce(', since ' || coalesce(a.xact_start, p.prepared), '') || ')', ''), '; ')
    INTO holders
    FROM pg_locks AS l
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    LEFT JOIN pg_locks AS own
        ON l.pid IS NULL AND own.locktype = 'transactionid' AND own.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_prepared_xacts AS p ON p.transaction = own.transactionid
    WHERE l.locktype = 'relation' AND l.relation = 'refold.events'::regclass AND l.granted
      AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                     'AccessExclusiveLock')
      AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database());
    RAISE EXCEPTION 'the log has no room, and the transaction that makes room does not end: %', coalesce(holders, 'gone by now')
        USING ERRCODE = 'lock_not_available',
              HINT = 'End that transaction: SELECT pg_terminate_backend(PID); or COMMIT or ROLLBACK PREPARED ''GID'';';
END
$$;

COMMENT ON FUNCTION refold.lock_segments(boolean)
    IS 'Keep other sessions from creating segments until the transaction ends; return false if another holds the lock.';
