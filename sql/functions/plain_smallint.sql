-- Without this function Postgres would cast an integer to double, which cannot hold all integers.
CREATE OR REPLACE FUNCTION refold.plain(smallint) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT $1';
