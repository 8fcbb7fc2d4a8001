-- How fresh and complete each metric is now.
CREATE OR REPLACE VIEW metrics.freshness WITH (security_barrier) AS
SELECT
    b.projection                                            AS metric,
    least(coalesce(u.oldest, now()), r.at)                  AS as_of,
    u.events                                                AS lag_events,
    coalesce(extract(epoch FROM now() - least(u.oldest, r.at)), 0)::numeric(12, 3) AS lag_seconds,
    b.applied_at                                            AS last_applied_at,
    b.waiting_letters::bigint                               AS dead_letters,
    u.exact                                                 AS lag_exact,
    p.proved_at,
    CASE WHEN p.proved_at IS NOT NULL THEN
        greatest(extract(epoch FROM now() - p.proved_at), 0)::numeric(12, 3)
    END AS proved_seconds,
    p.deep_proved_at,
    date '1970-01-01' + b.retained_from                     AS kept_from
FROM refold.builds_now AS b
JOIN refold.unread_now() AS u ON u.build_id = b.build_id
-- On a standby, include its lag behind the primary.
CROSS JOIN (SELECT refold.replayed_at() AS at) AS r
-- Proofs are of the build's table. While another view stands in its place, they say nothing about the metric.
LEFT JOIN refold.proofs_now AS p ON p.build_id = b.build_id AND b.projection <> ALL (ARRAY(
    SELECT i.subject FROM refold.incidents AS i WHERE i.kind = 'hidden' AND i.resolved_at IS NULL))
WHERE b.state = 'live';

COMMENT ON VIEW metrics.freshness IS 'For each metric: the instant up to which it is complete, its lag behind the log in events and seconds, and since when it is proved.';
COMMENT ON COLUMN metrics.freshness.as_of IS 'Everything recorded before this instant is in the metric.';
COMMENT ON COLUMN metrics.freshness.lag_events IS 'Events in the log that the metric has not applied yet; an estimate beyond a hundred.';
COMMENT ON COLUMN metrics.freshness.lag_seconds IS 'Seconds that the oldest of them has waited; on a standby at least its lag behind the primary.';
COMMENT ON COLUMN metrics.freshness.dead_letters IS 'Events that could not be processed and are missing from the metric.';
COMMENT ON COLUMN metrics.freshness.lag_exact IS 'Whether lag_events was counted; otherwise it is an estimate.';
COMMENT ON COLUMN metrics.freshness.proved_at IS 'At this instant an audit found the metric and all that it reads as they must be. NULL: not proved.';
COMMENT ON COLUMN metrics.freshness.proved_seconds IS 'Seconds since then.';
COMMENT ON COLUMN metrics.freshness.deep_proved_at IS 'The same for audits that recompute everything from the log, which take days: the instant at which the oldest slice was compared.';
COMMENT ON COLUMN metrics.freshness.kept_from IS 'The first day whose rows the metric keeps; older ones are gone. NULL: it keeps all.';

-- Analysts may read only the metrics; this view shows them how fresh the others are.
GRANT SELECT ON metrics.freshness TO refold_analyst, refold_observer;
