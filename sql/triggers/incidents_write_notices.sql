CREATE OR REPLACE TRIGGER write_notices
AFTER INSERT OR UPDATE OF kind, resolved_at ON refold.incidents
FOR EACH ROW EXECUTE FUNCTION refold.write_notices();
