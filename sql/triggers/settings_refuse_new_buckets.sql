CREATE OR REPLACE TRIGGER refuse_new_buckets
BEFORE UPDATE OF cold_buckets ON refold.settings
FOR EACH ROW EXECUTE FUNCTION refold.refuse_new_buckets();
