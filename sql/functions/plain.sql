-- The common spelling of equal values. A key or a minimum keeps one of several equal values, and without a common spelling
-- it would depend on the order of the events. Values of most types have only one spelling and are returned unchanged.
-- (In SQL, so that the planner can inline it.)
CREATE OR REPLACE FUNCTION refold.plain(anyelement) RETURNS anyelement
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT $1';
