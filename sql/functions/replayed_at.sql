-- Up to when a standby has repeated what its primary wrote; NULL on a primary, and where nothing is known to be missing:
-- the standby is connected, and has repeated all that it got. Else the last transaction that it repeated says it, or the
-- checkpoint from which it began.
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
    IS 'Up to when a standby has what its primary wrote; NULL where nothing is known to be missing.';
