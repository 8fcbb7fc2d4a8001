-- What a metric's view makes of a row is evaluated when the row is written, in the WHEN condition of a trigger: there
-- it fails for the event that causes it, and not for everybody who looks. The condition is never true.
-- (Not a generated column, nor a CHECK: an upsert evaluates these for the row that is proposed, which is a page's part
-- of a sum and not the sum.)
CREATE OR REPLACE FUNCTION refold.evaluated() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'the condition of % on % was true', TG_NAME, TG_RELID::regclass;
END
$$;
