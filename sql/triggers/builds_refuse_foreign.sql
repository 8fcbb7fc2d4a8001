CREATE OR REPLACE TRIGGER refuse_foreign
BEFORE UPDATE OF done, target ON refold.builds
FOR EACH ROW WHEN (NEW.target IS NOT NULL OR OLD.done::text <> NEW.done::text)
EXECUTE FUNCTION refold.refuse_foreign();
