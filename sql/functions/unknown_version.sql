-- What is wrong with an event whose action has contracts, but none for its version.
CREATE OR REPLACE FUNCTION refold.unknown_version(action text, version integer) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
SELECT format('version: %s has no contract for version %s, but for %s',
              left(unknown_version.action, 100), unknown_version.version,
              (SELECT string_agg(v.version::text, ', ' ORDER BY v.version)
               FROM (SELECT c.version FROM refold.contracts AS c WHERE c.action = unknown_version.action
                     ORDER BY c.version DESC LIMIT 5) AS v))
$$;

COMMENT ON FUNCTION refold.unknown_version(text, integer)
    IS 'Return what is wrong with an event whose action has contracts, but none for its version.';
