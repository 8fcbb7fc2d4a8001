-- How fresh and complete each metric is now.
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
JOIN refold.unread_now() AS u ON u.build_id = b.build_id
-- On a standby, include its lag behind the primary.
CROSS JOIN (SELECT refold.replayed_at() AS at) AS r
WHERE b.state = 'live';

COMMENT ON VIEW metrics.freshness IS 'For each metric: the instant up to which it is complete, and its lag behind the log in events and seconds.';
COMMENT ON COLUMN metrics.freshness.as_of IS 'Everything recorded before this instant is in the metric.';
COMMENT ON COLUMN metrics.freshness.lag_events IS 'Events in the log that the metric has not applied yet; an estimate beyond a hundred.';
COMMENT ON COLUMN metrics.freshness.lag_seconds IS 'Seconds that the oldest of them has waited; on a standby at least its lag behind the primary.';
COMMENT ON COLUMN metrics.freshness.dead_letters IS 'Events that could not be processed and are missing from the metric.';
COMMENT ON COLUMN metrics.freshness.lag_exact IS 'Whether lag_events was counted; otherwise it is an estimate.';

-- Analysts may read only the metrics; this view shows them how fresh the others are.
GRANT SELECT ON metrics.freshness TO refold_analyst, refold_observer;
