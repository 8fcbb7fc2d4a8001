-- The reason why contracts refuse an event; NULL if they take it. For single events: refold.check_contracts and
-- refold.judge ask the same for many.
CREATE OR REPLACE FUNCTION refold.contract_problem(action text, version integer, metadata jsonb) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
DECLARE
    one refold.contracts;
BEGIN
    SELECT c.* INTO one FROM refold.contracts AS c
    WHERE c.action = contract_problem.action AND c.version = contract_problem.version;
    IF FOUND THEN
        IF one.level <> 'enforce'
           OR refold.keeps_contract(metadata, one.predicate, one.keys) THEN
            RETURN NULL;
        END IF;
        RETURN (refold.contract_breach(one, metadata)).reason;
    END IF;
    RETURN refold.unknown_version(action, version)
    FROM refold.settings AS s
    WHERE s.unknown_versions = 'reject'
      AND EXISTS (SELECT FROM refold.contracts AS c WHERE c.action = contract_problem.action AND c.level <> 'off');
END
$$;

COMMENT ON FUNCTION refold.contract_problem(text, integer, jsonb)
    IS 'Return why contracts refuse an event; NULL if they take it.';
