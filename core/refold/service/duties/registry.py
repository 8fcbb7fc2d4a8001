"""The list of all duties of a worker."""

from __future__ import annotations

from refold.service.duties import (
    audits,
    blocking_transactions,
    capture_gaps,
    compact_checksums,
    held_snapshots,
    hot_keys,
    lag_and_stall,
    missed_notifications,
    pressure,
    prune_statistics,
    purity,
    retention,
    scrub,
    sinks,
    stale_incidents,
)
from refold.service.duties.schedule import Duty

DUTIES: tuple[Duty, ...] = (
    Duty(lag_and_stall.NAME, 5.0, lag_and_stall.run),
    Duty(pressure.NAME, 5.0, pressure.run),
    Duty(blocking_transactions.NAME, 10.0, blocking_transactions.run),
    Duty(held_snapshots.NAME, 10.0, held_snapshots.run),
    Duty(capture_gaps.NAME, 10.0, capture_gaps.run),
    Duty(sinks.NAME, 30.0, sinks.run),
    Duty(compact_checksums.NAME, 30.0, compact_checksums.run),
    Duty(hot_keys.NAME, 60.0, hot_keys.run),
    Duty(missed_notifications.NAME, 60.0, missed_notifications.run),
    Duty(purity.NAME, 60.0, purity.run),
    Duty(stale_incidents.NAME, 60.0, stale_incidents.run),
    Duty(prune_statistics.NAME, 60.0, prune_statistics.run),
    Duty(retention.NAME, 600.0, retention.run),
    Duty(audits.QUICK, 60.0, audits.quick_audit, statement_timeout_s=120.0),
    Duty(audits.DEEP, 10.0, audits.deep_step, statement_timeout_s=120.0),
    Duty(scrub.NAME, 60.0, scrub.run, statement_timeout_s=120.0),
    Duty(audits.SEALING, 60.0, audits.seal_segments, statement_timeout_s=120.0),
)
