-- The expressions of a metric's view are evaluated when a row is written, in the WHEN condition of a trigger. There an
-- error concerns the event that causes it, and not every reader of the view. The condition is never true.
-- (A generated column or a CHECK would not do: an upsert evaluates them for the proposed row, which holds a page's part
-- of a sum and not the sum.)
CREATE OR REPLACE FUNCTION refold.evaluated() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'the condition of % on % was true', TG_NAME, TG_RELID::regclass;
END
$$;
