-- HMAC-SHA256 under the key of erasures. By it an erased person or event is known again, and by nobody without the key.
CREATE OR REPLACE FUNCTION refold.erasure_mac(what text) RETURNS bytea
LANGUAGE sql STABLE
AS $$
SELECT sha256(k.outer_pad || sha256(k.inner_pad || convert_to(what, 'UTF8'))) FROM refold.erasure_key AS k
$$;

COMMENT ON FUNCTION refold.erasure_mac(text) IS 'Return the HMAC-SHA256 of an id under the key of erasures.';
