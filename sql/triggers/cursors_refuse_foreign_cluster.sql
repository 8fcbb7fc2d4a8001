CREATE OR REPLACE TRIGGER refuse_foreign_cluster
BEFORE INSERT ON refold.cursors
FOR EACH ROW WHEN (NEW.target IS NOT NULL OR NEW.done::text <> '1:1:')
EXECUTE FUNCTION refold.refuse_foreign_cluster();
