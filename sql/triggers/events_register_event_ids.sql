CREATE OR REPLACE TRIGGER a_register_event_ids
AFTER INSERT ON refold.events
REFERENCING NEW TABLE AS arrived
FOR EACH STATEMENT EXECUTE FUNCTION refold.register_event_ids();
ALTER TABLE refold.events ENABLE ALWAYS TRIGGER a_register_event_ids;
