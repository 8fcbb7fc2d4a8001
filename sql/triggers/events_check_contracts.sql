-- After the ledger: an event that was stored before its contract was enforced is a duplicate.
CREATE OR REPLACE TRIGGER b_check_contracts
AFTER INSERT ON refold.events
REFERENCING NEW TABLE AS arrived
FOR EACH STATEMENT EXECUTE FUNCTION refold.check_contracts();
ALTER TABLE refold.events ENABLE ALWAYS TRIGGER b_check_contracts;
