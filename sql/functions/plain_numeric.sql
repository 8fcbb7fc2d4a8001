-- 1.00 as 1.
CREATE OR REPLACE FUNCTION refold.plain(numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT pg_catalog.trim_scale($1)';
