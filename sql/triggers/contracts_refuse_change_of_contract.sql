CREATE OR REPLACE TRIGGER refuse_change_of_contract
BEFORE UPDATE OR DELETE ON refold.contracts
FOR EACH ROW EXECUTE FUNCTION refold.refuse_change_of_contract();
