-- The time up to which a standby has replayed its primary; NULL on a primary, and on a connected standby that has replayed
-- all it received. Otherwise it is the time of the last replayed transaction, or of the checkpoint at which replay began.
CREATE OR REPLACE FUNCTION refold.replayed_at() RETURNS timestamptz
LANGUAGE sql STABLE
SET search_path = pg_catalog
AS $$
SELECT coalesce(pg_last_xact_replay_timestamp(), (SELECT c.checkpoint_time FROM pg_control_checkpoint() AS c))
WHERE pg_is_in_recovery()
  AND (pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
       OR NOT EXISTS (SELECT FROM pg_stat_wal_receiver AS r WHERE r.pid IS NOT NULL))
$$;

COMMENT ON FUNCTION refold.replayed_at()
    IS 'Return the time up to which a standby has replayed its primary; NULL if it is not known to be behind.';
