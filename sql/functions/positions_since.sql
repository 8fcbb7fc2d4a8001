-- The first position that transactions from `since` on may have drawn, so that readers can skip earlier segments.
-- When a slice was recorded as passed, the sequence had passed its end, and the recording transaction got its id after that
-- (see refold.store.log.seal). A transaction with that id or a greater one got it later, and draws positions after its id.
CREATE OR REPLACE FUNCTION refold.positions_since(since xid8) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = refold, pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $$
DECLARE
    passed_slice bigint;
BEGIN
    SELECT s.slice INTO passed_slice FROM refold.sealed_slices AS s
    WHERE s.passed <= positions_since.since
    ORDER BY s.passed DESC, s.slice DESC
    LIMIT 1;
    -- 2^14 positions a slice: see refold.position_slice.
    RETURN coalesce((passed_slice + 1) << 14, 0);
END
$$;

COMMENT ON FUNCTION refold.positions_since(xid8)
    IS 'Return a position below which no transaction with this id or a greater one has written to the log.';
