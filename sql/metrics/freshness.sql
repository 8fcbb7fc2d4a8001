-- How far each metric can be trusted right now.
CREATE OR REPLACE VIEW metrics.freshness WITH (security_barrier) AS
SELECT
    b.projection                                            AS metric,
    least(coalesce(u.oldest, now()), r.at)                  AS as_of,
    u.events                                                AS lag_events,
    coalesce(extract(epoch FROM now() - least(u.oldest, r.at)), 0)::numeric(12, 3) AS lag_seconds,
    b.applied_at                                            AS last_applied_at,
    (SELECT count(*) FROM refold.dead_letters AS d
     WHERE d.build_id = b.build_id AND d.state = 'waiting') AS dead_letters,
    u.exact                                                 AS lag_exact
FROM refold.builds_now AS b
CROSS JOIN LATERAL refold.unread_of(b.build_id) AS u
-- On a standby, what has yet to come from the primary.
CROSS JOIN (SELECT refold.replayed_at() AS at) AS r
WHERE b.state = 'live';

COMMENT ON VIEW metrics.freshness IS 'Per metric: as of when it stands, and how many events and seconds it is behind the log.';
COMMENT ON COLUMN metrics.freshness.as_of IS 'Everything recorded before this instant is in the metric.';
COMMENT ON COLUMN metrics.freshness.lag_events IS 'Events in the log that the metric does not hold yet; beyond a hundred, about how many.';
COMMENT ON COLUMN metrics.freshness.lag_seconds IS 'How long the oldest of them has been waiting, in seconds; on a standby at least how far it is behind its primary.';
COMMENT ON COLUMN metrics.freshness.dead_letters IS 'Events that could not be processed and are not in the metric: known to be missing.';
COMMENT ON COLUMN metrics.freshness.lag_exact IS 'Whether lag_events was counted; else it is an estimate.';

-- Analysts read the metrics alone; this one tells them how far to trust the others.
GRANT SELECT ON metrics.freshness TO refold_analyst, refold_observer;
