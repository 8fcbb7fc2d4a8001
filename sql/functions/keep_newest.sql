-- Rows of cursors are added, and old ones deleted. The newest row of a build cannot be changed or deleted while the build
-- exists: that would move the cursor back, and events would be counted twice.
CREATE OR REPLACE FUNCTION refold.keep_newest() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM refold.cursors AS c WHERE c.build_id = OLD.build_id AND c.number > OLD.number)
           OR NOT EXISTS (SELECT FROM refold.builds AS b WHERE b.build_id = OLD.build_id) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION '% of the cursor of build % refused', TG_OP, OLD.build_id
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'A cursor moves by a row with the next number.';
END
$$;
