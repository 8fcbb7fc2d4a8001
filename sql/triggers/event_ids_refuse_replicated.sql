-- Only in the role of a replica: whoever appends pays nothing for it.
CREATE OR REPLACE TRIGGER refuse_replicated
BEFORE INSERT ON refold.event_ids
FOR EACH ROW EXECUTE FUNCTION refold.refuse_replicated();
ALTER TABLE refold.event_ids ENABLE REPLICA TRIGGER refuse_replicated;
