-- If an id were deleted from the ledger, its event could be appended a second time.
CREATE OR REPLACE TRIGGER refuse_change
BEFORE UPDATE OR DELETE OR TRUNCATE ON refold.event_ids
FOR EACH STATEMENT EXECUTE FUNCTION refold.refuse_change();
ALTER TABLE refold.event_ids ENABLE ALWAYS TRIGGER refuse_change;
