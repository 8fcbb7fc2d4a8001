-- The rule that an event breaks, and the reason in words, for events that do not keep their contract: the first one of
-- the contract; or that there is none for the version. It is expanded into the statements that ask it.
CREATE OR REPLACE FUNCTION refold.broken_rule(action text, version integer, metadata jsonb)
RETURNS TABLE (rule text, reason text)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT f.rule, f.reason
FROM refold.contracts AS c CROSS JOIN LATERAL refold.contract_breach(c, broken_rule.metadata) AS f
WHERE c.action = broken_rule.action AND c.version = broken_rule.version
UNION ALL
SELECT 'version: unknown', refold.unknown_version(broken_rule.action, broken_rule.version)
WHERE NOT EXISTS (
    SELECT FROM refold.contracts AS c WHERE c.action = broken_rule.action AND c.version = broken_rule.version
)
$$;

COMMENT ON FUNCTION refold.broken_rule(text, integer, jsonb)
    IS 'Return the rule that an event breaks, and the reason, if it does not keep its contract.';
