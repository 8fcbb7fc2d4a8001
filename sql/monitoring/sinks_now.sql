-- Sinks with their states: the newest row of each, as in refold.builds_now.
CREATE OR REPLACE VIEW refold.sinks_now AS
SELECT
    s.sink_id, s.name, s.projection, s.grain, s.kind, t.number, t.condition, t.following, t.build_id, t.epoch, t.holder,
    t.leased_until, t.failures, t.failing_since, t.retry_at, t.error, t.status, t.batch, t.delivered, t.delivered_at,
    t.tokens, t.given_epoch, t.given_number, t.done, t.target, t.progress_txid,
    t.progress_position, t.progress_ordinal, t.at, t.passed
FROM refold.sinks AS s
CROSS JOIN LATERAL (
    SELECT * FROM refold.sink_states AS n WHERE n.sink_id = s.sink_id ORDER BY n.number DESC LIMIT 1
) AS t;

COMMENT ON VIEW refold.sinks_now IS 'Sinks, each with its state: the newest of its rows in refold.sink_states.';
