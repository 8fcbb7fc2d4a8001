-- Builds with their cursors. The newest row is the cursor. An index scan from the end finds it, and reads neither older
-- rows nor dead ones that cannot be vacuumed yet.
CREATE OR REPLACE VIEW refold.builds_now AS
SELECT
    b.build_id, b.projection, b.fingerprint, b.number, b.state, b.table_name, b.language, b.definition, b.upkeep,
    b.upstream_id, c.done, c.target, c.progress_txid, c.progress_position, c.progress_ordinal, b.loaded, b.load_step,
    b.load_steps, c.events_applied, c.pages_applied, c.apply_ms, c.applied_at, c.moved_at, b.deployment, b.created_at,
    b.promoted_at, b.retired_at, b.retired_by, b.error, b.dead_letters,
    -- The name of an error is safe to show; its message may repeat content of an event.
    split_part(b.error, ':', 1) AS failing, b.waiting_letters, b.sinks, b.floor, b.retained_from
FROM refold.builds AS b
CROSS JOIN LATERAL (
    SELECT * FROM refold.cursors AS n WHERE n.build_id = b.build_id ORDER BY n.number DESC LIMIT 1
) AS c;

COMMENT ON VIEW refold.builds_now IS 'Builds, each with its cursor: the newest of its rows in refold.cursors.';
