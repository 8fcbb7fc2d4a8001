-- The first rule of a contract that metadata breaks, and the reason in words. For the few events that break one: the
-- many are let through by the contract's predicate alone.
CREATE OR REPLACE FUNCTION refold.contract_breach(
    contract refold.contracts, metadata jsonb, OUT rule text, OUT reason text
)
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = refold, pg_catalog, pg_temp
AS $$
SELECT t.name || CASE WHEN t.closed THEN 'unknown field'
                      WHEN t.wrong IS NULL THEN 'is missing'
                      ELSE 'must be ' || t.must END,
       t.name || CASE
           WHEN t.closed THEN 'unknown field ' || left(t.wrong::text, 60)
           WHEN t.wrong IS NULL THEN 'is missing'
           ELSE 'must be ' || t.must || ', not '
                || CASE WHEN t.types ? jsonb_typeof(t.wrong) AND jsonb_typeof(t.wrong) NOT IN ('array', 'object')
                        THEN left(t.wrong::text, 60) ELSE refold.json_type_name(t.wrong) END
       END || format(' (contract %s v%s)', (contract).action, (contract).version)
FROM (
    SELECT CASE WHEN r.rule ->> 'name' = '' THEN '' ELSE (r.rule ->> 'name') || ': ' END AS name,
           r.rule ->> 'must' AS must, r.rule -> 'types' AS types, (r.rule ->> 'closed')::boolean AS closed,
           CASE WHEN c.condition IS NULL THEN to_jsonb(k.key)
                ELSE jsonb_path_query_first(metadata, (r.rule ->> 'value')::jsonpath, silent => true) END AS wrong
    FROM unnest((contract).conditions) WITH ORDINALITY AS c (condition, place)
    CROSS JOIN LATERAL (SELECT (contract).rules -> (c.place::integer - 1) AS rule) AS r
    LEFT JOIN LATERAL (
        SELECT key FROM jsonb_object_keys(metadata) AS key WHERE key <> ALL ((contract).keys) ORDER BY key LIMIT 1
    ) AS k ON c.condition IS NULL
    WHERE CASE WHEN c.condition IS NULL THEN k.key IS NOT NULL ELSE (metadata @@ c.condition) IS NOT TRUE END
    ORDER BY c.place
    LIMIT 1
) AS t
$$;

COMMENT ON FUNCTION refold.contract_breach(refold.contracts, jsonb)
    IS 'Return the first rule of a contract that metadata breaks, and the reason; NULL if it keeps the contract.';
