-- If an id were deleted from the cold ledger, its event could be appended a second time.
CREATE OR REPLACE TRIGGER refuse_change
BEFORE DELETE OR TRUNCATE ON refold.cold_ids
FOR EACH STATEMENT EXECUTE FUNCTION refold.refuse_change();
ALTER TABLE refold.cold_ids ENABLE ALWAYS TRIGGER refuse_change;
