-- Record that the events of a range of positions leave the log, in the transaction that detaches their segment. Their ids go
-- to the cold ledger afterwards (refold.chill_step): until then the ledger has them, so that at no instant none has.
CREATE OR REPLACE FUNCTION refold.chill(lower_position bigint, upper_position bigint) RETURNS void
LANGUAGE sql
SET search_path = refold, pg_catalog, pg_temp
AS $$
-- Once ids are in buckets, their number stays. So many that a bucket holds about 64 ids if all of today's log goes: with up
-- to ten times as many its row still is in one place, and a lookup reads one page.
UPDATE refold.settings AS s
SET cold_buckets = (
    SELECT least(greatest(2 ^ ceil(log(2, greatest(p.last_value, 64) / 64.0)), 1024), 4194304)::integer
    FROM refold.events_position AS p
)
WHERE s.cold_buckets IS NULL;
INSERT INTO refold.cold_ranges (lower_position, upper_position, released_to)
VALUES (chill.lower_position, chill.upper_position, chill.lower_position)
ON CONFLICT DO NOTHING;
$$;

COMMENT ON FUNCTION refold.chill(bigint, bigint)
    IS 'Record that the events of a range of positions leave the log; refold.chill_step moves their ids to the cold ledger.';
