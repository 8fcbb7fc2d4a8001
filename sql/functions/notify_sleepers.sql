-- NOTIFY only when a worker sleeps. A sleeper holds the lock shared, so trying it exclusively
-- fails exactly then. Trying and letting go are one expression: between two statements a cancel could leak
-- the lock and keep every worker from sleeping. NOTIFY in every commit would take a cluster-wide lock.
-- `SET refold.notify = off` (for a role or session) lets a producer PREPARE TRANSACTION.
-- When somebody's listener is stuck and the cluster's queue fills, NOTIFY would make the commit fail: then
-- workers poll.
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
