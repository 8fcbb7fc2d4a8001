-- The condition is evaluated without calling the function.
CREATE OR REPLACE TRIGGER within_limits
BEFORE INSERT ON refold.events
FOR EACH ROW
WHEN (NOT refold.plain_metadata(NEW.metadata))
EXECUTE FUNCTION refold.refuse_beyond_limits();
ALTER TABLE refold.events ENABLE ALWAYS TRIGGER within_limits;
