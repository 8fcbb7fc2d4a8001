CREATE OR REPLACE TRIGGER refuse_change_of_row
BEFORE UPDATE OR DELETE ON refold.event_ids
FOR EACH ROW EXECUTE FUNCTION refold.refuse_change();
ALTER TABLE refold.event_ids ENABLE ALWAYS TRIGGER refuse_change_of_row;
