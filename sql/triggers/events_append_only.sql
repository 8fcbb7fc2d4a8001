-- Refuse UPDATE, DELETE and TRUNCATE of the log. Each segment has the same guard (refold.ensure_segments),
-- because a statement on a segment never fires the parent's.
CREATE OR REPLACE TRIGGER refuse_change
BEFORE UPDATE OR DELETE OR TRUNCATE ON refold.events
FOR EACH STATEMENT EXECUTE FUNCTION refold.refuse_change();
ALTER TABLE refold.events ENABLE ALWAYS TRIGGER refuse_change;
