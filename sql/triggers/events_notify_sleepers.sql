-- After the rows: the transaction must have its id before a sleeper looks at what is in progress.
CREATE OR REPLACE TRIGGER b_notify_sleepers
AFTER INSERT ON refold.events
FOR EACH STATEMENT EXECUTE FUNCTION refold.notify_sleepers();
ALTER TABLE refold.events ENABLE ALWAYS TRIGGER b_notify_sleepers;
