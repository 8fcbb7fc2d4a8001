-- The number of events that the log has ever taken. It never falls: to what a duty has counted it adds the next 4,096 events
-- behind the duty's cursor, which the duty will count too. While more than that come between two runs, it lags behind.
CREATE OR REPLACE FUNCTION refold.events_total() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
SELECT c.events + (
    SELECT least(count(*), 4096)
    FROM refold.first_unread(c.done, c.target, c.progress_txid, c.progress_position, 4096)
)
FROM refold.counted_events AS c
WHERE c.done IS NOT NULL
$$;

COMMENT ON FUNCTION refold.events_total()
    IS 'Return the number of events that the log has ever taken, or a little less. It never falls. NULL: not counted yet.';
