-- A subscription changes rows without firing triggers on statements. (The trigger costs an INSERT nothing.)
CREATE OR REPLACE TRIGGER refuse_change_of_row
BEFORE UPDATE OR DELETE ON refold.events
FOR EACH ROW EXECUTE FUNCTION refold.refuse_change();
ALTER TABLE refold.events ENABLE ALWAYS TRIGGER refuse_change_of_row;
