-- A version of an action that is registered never changes: events that came under it are judged by it for ever. Its level
-- may, and so may what is made from its schema, by a newer refold.
CREATE OR REPLACE FUNCTION refold.refuse_change_of_contract() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (NEW.action, NEW.version, NEW.schema, NEW.digest, NEW.registered_at)
                            IS NOT DISTINCT FROM (OLD.action, OLD.version, OLD.schema, OLD.digest, OLD.registered_at) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a registered contract never changes'
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Register another version; `refold deploy` changes the level, "off" among others.';
END
$$;
