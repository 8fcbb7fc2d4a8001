-- The first position that transactions from `since` on may have drawn: which segments need not be looked at.
-- When a slice was noted as passed, the sequence had passed its end, and the noting transaction got its id after that
-- (see refold.store.log.seal). Whoever has that id or a greater one got it later still, and draws positions after his id.
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
    IS 'No transaction with this id or a greater one has written to the log below this position.';
