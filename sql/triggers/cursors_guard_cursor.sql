CREATE OR REPLACE TRIGGER guard_cursor
BEFORE INSERT ON refold.cursors
FOR EACH ROW EXECUTE FUNCTION refold.guard_cursor();
