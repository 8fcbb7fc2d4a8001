CREATE OR REPLACE TRIGGER guard_cursor
BEFORE UPDATE OF done ON refold.builds
FOR EACH ROW WHEN (OLD.done::text <> NEW.done::text)
EXECUTE FUNCTION refold.guard_cursor();
