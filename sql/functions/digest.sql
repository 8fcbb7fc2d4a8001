-- The fingerprint of an event's content: equal for equal content, by the equality of the types
-- (1.0 and 1.00 are one value). It is computed here and nowhere else.
CREATE OR REPLACE FUNCTION refold.digest(
    user_id text, action text, ts timestamptz, metadata jsonb, version integer
) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT hash_record_extended(ROW(user_id, action, ts, metadata, version), 0) $$;

COMMENT ON FUNCTION refold.digest(text, text, timestamptz, jsonb, integer)
    IS 'Return the fingerprint of an event''s content, which tells a duplicate from a conflict.';
