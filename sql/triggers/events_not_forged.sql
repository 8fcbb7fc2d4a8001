-- The condition is evaluated without calling the function, so that it costs a valid row next to nothing.
CREATE OR REPLACE TRIGGER refuse_forgery
BEFORE INSERT ON refold.events
FOR EACH ROW
WHEN (NEW.txid <> pg_current_xact_id() OR NEW.position <> currval('refold.events_position')
      OR (starts_with(NEW.event_id, 'capture:') AND current_user <> 'refold_capture'))
EXECUTE FUNCTION refold.refuse_forgery();
ALTER TABLE refold.events ENABLE ALWAYS TRIGGER refuse_forgery;
