-- The key of a captured row in an id, which has at most 255 characters: a long key is replaced by its hash. (`~` begins no
-- other key: it is encoded there.)
CREATE OR REPLACE FUNCTION refold.short_key(key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN char_length(key) > 100 THEN '~' || md5(key) ELSE key END $$;
