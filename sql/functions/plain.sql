-- The one spelling of equal values: whoever keeps one of several equals (a key, a minimum) keeps it in this one, else
-- the order in which events came would show. Where a type has one spelling for each value, the value itself.
-- (In SQL, so that the planner puts the argument in its place.)
CREATE OR REPLACE FUNCTION refold.plain(anyelement) RETURNS anyelement
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT $1';
