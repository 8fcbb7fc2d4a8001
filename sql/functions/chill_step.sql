-- Move ids of purged events from the ledger to the cold ledger, a bounded step in each call, and return how many; NULL: none
-- is left. First all ids of a range are copied, which nobody waits for. Then they are deleted from the ledger, a few at a
-- time: a producer that sends one again directly waits for the end of that transaction, and then finds it in its bucket.
CREATE OR REPLACE FUNCTION refold.chill_step() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
-- A plan for any number of rows would look up a million buckets one by one.
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    portion CONSTANT bigint := 65536;
    one refold.cold_ranges;
    upto bigint;
    done bigint;
    more record;
BEGIN
    -- Two steps at once would write buckets over that the other has written. Readers are not concerned.
    LOCK TABLE refold.cold_ids IN SHARE ROW EXCLUSIVE MODE;
    SELECT * INTO one FROM refold.cold_ranges AS r
    WHERE r.released_to < r.upper_position ORDER BY r.lower_position LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF one.copied_at IS NULL THEN
        SELECT * INTO more FROM refold.add_cold_ids(one.lower_position, one.upper_position);
        UPDATE refold.cold_ranges AS r SET copied_at = clock_timestamp(), ids = more.added, sum = more.sum
        WHERE r.lower_position = one.lower_position;
        RETURN more.added;
    END IF;
    upto := least(one.released_to + portion, one.upper_position);
    PERFORM set_config('refold.releasing', 'on', true);
    -- Only what is in its bucket, as it is in the ledger.
    WITH safe AS MATERIALIZED (
        SELECT h.event_id
        FROM (
            SELECT k.event_id, refold.cold_digest(k.digest) AS digest, refold.cold_id(k.event_id) AS id,
                   refold.cold_bucket(k.event_id, s.cold_buckets) AS bucket
            FROM refold.event_ids AS k CROSS JOIN refold.settings AS s
            WHERE k.position >= one.released_to AND k.position < upto
            OFFSET 0
        ) AS h
        JOIN refold.cold_ids AS c ON c.bucket = h.bucket
        WHERE c.digests[array_position(c.ids, h.id)] IN (h.digest, 0)
    )
    DELETE FROM refold.event_ids AS k USING safe WHERE k.event_id = safe.event_id;
    GET DIAGNOSTICS done = ROW_COUNT;
    PERFORM set_config('refold.releasing', 'off', true);
    IF EXISTS (SELECT FROM refold.event_ids AS k WHERE k.position >= one.released_to AND k.position < upto) THEN
        -- The ledger has been corrected since, or a bucket is damaged. Copy them again; the next step deletes them.
        SELECT * INTO more FROM refold.add_cold_ids(one.released_to, upto);
        UPDATE refold.cold_ranges AS r SET ids = r.ids + more.added, sum = r.sum + more.sum
        WHERE r.lower_position = one.lower_position;
    ELSE
        UPDATE refold.cold_ranges AS r SET released_to = upto WHERE r.lower_position = one.lower_position;
    END IF;
    RETURN done;
END
$$;

COMMENT ON FUNCTION refold.chill_step()
    IS 'Move some ids of purged events to the cold ledger, and return how many; NULL: none is left.';
