-- It fires only in the replication role of a replica.
CREATE OR REPLACE TRIGGER refuse_replicated
BEFORE INSERT ON refold.cold_ids
FOR EACH ROW EXECUTE FUNCTION refold.refuse_replicated();
ALTER TABLE refold.cold_ids ENABLE REPLICA TRIGGER refuse_replicated;
