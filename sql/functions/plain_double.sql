-- -0 as 0.
CREATE OR REPLACE FUNCTION refold.plain(double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT $1 + 0.0::double precision';
