-- It fires only in the replication role of a replica, so that it costs an append nothing.
CREATE OR REPLACE TRIGGER refuse_replicated
BEFORE INSERT ON refold.event_ids
FOR EACH ROW EXECUTE FUNCTION refold.refuse_replicated();
ALTER TABLE refold.event_ids ENABLE REPLICA TRIGGER refuse_replicated;
