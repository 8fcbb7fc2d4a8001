-- Whether metadata keeps a contract, given by its predicate and the fields that it allows (NULL: any). What a strict path
-- cannot decide does not keep it. It is expanded into the statements that ask it: a call would cost more than the check.
CREATE OR REPLACE FUNCTION refold.keeps_contract(metadata jsonb, predicate jsonpath, keys text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
SELECT ((metadata @@ predicate) AND (keys IS NULL OR metadata - keys = '{}')) IS TRUE
$$;

COMMENT ON FUNCTION refold.keeps_contract(jsonb, jsonpath, text[]) IS 'Return whether metadata keeps a contract.';
