-- An upcaster has made NULL of an event's metadata: jsonb_set does that where the new value is NULL. All other fields would
-- be lost with it, and a metric would count the event as one without them. An error makes it a dead letter.
CREATE OR REPLACE FUNCTION refold.no_upcast(action text, version integer) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    RAISE EXCEPTION 'the upcaster of % v% makes NULL of the metadata', action, version
        USING ERRCODE = 'null_value_not_allowed';
END
$$;

COMMENT ON FUNCTION refold.no_upcast(text, integer) IS 'Fail: an upcaster has made NULL of an event''s metadata.';
