CREATE OR REPLACE TRIGGER refuse_truncate
BEFORE TRUNCATE ON refold.contracts
FOR EACH STATEMENT EXECUTE FUNCTION refold.refuse_change_of_contract();
