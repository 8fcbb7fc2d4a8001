-- The JSON type of a value, with its article, for messages.
CREATE OR REPLACE FUNCTION refold.json_type_name(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE jsonb_typeof(value)
    WHEN 'null' THEN 'null' WHEN 'array' THEN 'an array' WHEN 'object' THEN 'an object'
    ELSE 'a ' || jsonb_typeof(value) END
$$;
