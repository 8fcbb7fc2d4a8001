-- Whether this reader sees the candidate of a metric and not its live build. The views of metrics with a canary call it
-- once for each build, as a one-time filter; all calls of a statement see the same snapshot, so a query sees one build.
--
-- refold.canary = on | off decides for a session. Otherwise members of refold_canary see it, and so many percent of
-- readers as the step says, and no more than the limit: readers are told apart by refold.reader, else by their login. A reader who sees the
-- candidate at a step sees it at all later steps, unless the limit is lowered.
CREATE OR REPLACE FUNCTION refold.on_canary(metric text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = refold, pg_catalog, pg_temp
AS $$
SELECT coalesce((
    SELECT CASE current_setting('refold.canary', true)
        WHEN 'on' THEN true
        WHEN 'off' THEN false
        ELSE (hashtextextended(
                  coalesce(nullif(current_setting('refold.reader', true), ''), nullif(current_setting('role'), 'none'),
                           session_user), c.canary_id) % 10000 + 10000) % 10000 < 100 * least(c.steps[c.step], c.at_most)
             OR EXISTS (
                 SELECT FROM pg_roles AS r
                 WHERE r.rolname = coalesce(nullif(current_setting('role'), 'none'), session_user)
                   -- A superuser counts as a member of every role.
                   AND NOT r.rolsuper AND pg_has_role(r.oid, 'refold_canary', 'USAGE'))
    END
    FROM refold.canary_builds AS b
    JOIN refold.canaries AS c USING (canary_id)
    JOIN refold.builds AS o USING (build_id)
    WHERE b.projection = metric AND b.shown AND b.exposed AND c.ended_at IS NULL AND o.state = 'building'
), false)
$$;
