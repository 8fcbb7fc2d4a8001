CREATE OR REPLACE TRIGGER forget_build
AFTER DELETE ON refold.builds
FOR EACH ROW EXECUTE FUNCTION refold.forget_build();
