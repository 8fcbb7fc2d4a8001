CREATE OR REPLACE TRIGGER guard_retained
BEFORE UPDATE OF retained_from ON refold.builds
FOR EACH ROW WHEN (OLD.retained_from IS NOT NULL) EXECUTE FUNCTION refold.guard_retained();
