-- What holds producers back, for everybody who brings events in. A signal that no worker has measured for a minute and
-- a half keeps its level, and is not known: unknown is never fine.
CREATE OR REPLACE VIEW refold.pressure AS
SELECT
    signal, level, value, slow_at, stop_at, since, seen_at,
    seen_at BETWEEN clock_timestamp() - interval '90 seconds' AND clock_timestamp() + interval '90 seconds' AS known
FROM refold.pressure_signals;

COMMENT ON VIEW refold.pressure IS 'What holds producers back: one row a signal, with its level, and whether it is known.';
