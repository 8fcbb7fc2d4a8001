-- How urgent an incident of a kind is, and how long it may be open before anybody is told: what ends by itself in that time
-- is told to nobody. `page`: a person now. `ticket`: a person on the next working day.
CREATE OR REPLACE FUNCTION refold.notice_rule(kind text, OUT level text, OUT after interval)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(r.level, 'ticket'), coalesce(r.after, interval '0')
    FROM (SELECT) AS always
    LEFT JOIN (VALUES
        ('log_damage', 'page', interval '0'),
        ('foreign_cluster', 'page', interval '0'),
        ('stalled', 'page', interval '0'),
        ('lag', 'page', interval '2 minutes'),
        ('pressure', 'page', interval '2 minutes'),
        -- Healed within minutes, or it cannot be.
        ('drift', 'page', interval '15 minutes'),
        ('hidden', 'page', interval '15 minutes'),
        ('held_back', 'ticket', interval '2 minutes'),
        ('held_snapshot', 'ticket', interval '15 minutes'),
        ('missed_notification', 'ticket', interval '15 minutes'),
        ('archive', 'ticket', interval '15 minutes'),
        ('archive_damage', 'page', interval '0'),
        ('sink', 'ticket', interval '15 minutes'),
        ('outbox_collapsed', 'none', interval '0')
    ) AS r (kind, level, after) ON r.kind = notice_rule.kind
$$;

COMMENT ON FUNCTION refold.notice_rule(text)
    IS 'Return the level of an incident of a kind, and how long it may be open before routes are told.';
