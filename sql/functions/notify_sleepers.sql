-- NOTIFY only if a worker sleeps. A sleeper holds the lock shared, so that an attempt to lock it exclusively fails exactly
-- then. Lock and unlock are in one expression: a cancel between two statements could leak the lock, and then no worker
-- could sleep. A NOTIFY in every commit would take a cluster-wide lock each time.
-- `SET refold.notify = off` (for a role or session) lets a producer PREPARE TRANSACTION.
-- If a stuck listener lets the cluster's queue fill up, NOTIFY would make the commit fail: then workers poll instead.
CREATE OR REPLACE FUNCTION refold.notify_sleepers() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF coalesce(current_setting('refold.notify', true), 'on') <> 'off'
       AND NOT (CASE WHEN pg_try_advisory_lock(refold.sleepers_lock())
                     THEN pg_advisory_unlock(refold.sleepers_lock()) ELSE false END)
       AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('refold', '');
    END IF;
    RETURN NULL;
END
$$;
