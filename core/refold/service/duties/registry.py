"""The list of all duties of a worker."""

from __future__ import annotations

from refold.service.duties import (
    anomalies,
    archive,
    audits,
    blocking_transactions,
    canary,
    capture_gaps,
    cold_ledger,
    compact_checksums,
    erasures,
    held_snapshots,
    hot_keys,
    lag_and_stall,
    missed_notifications,
    notices,
    openlineage,
    pressure,
    prune_statistics,
    purge,
    purity,
    retain,
    retention,
    scrub,
    sinks,
    stale_incidents,
    totals,
)
from refold.service.duties.schedule import Duty

DUTIES: tuple[Duty, ...] = (
    Duty(lag_and_stall.NAME, 5.0, lag_and_stall.run),
    Duty(pressure.NAME, 5.0, pressure.run),
    Duty(blocking_transactions.NAME, 10.0, blocking_transactions.run),
    Duty(held_snapshots.NAME, 10.0, held_snapshots.run),
    Duty(capture_gaps.NAME, 10.0, capture_gaps.run),
    Duty(totals.NAME, 10.0, totals.run),
    Duty(sinks.NAME, 30.0, sinks.run),
    Duty(compact_checksums.NAME, 30.0, compact_checksums.run),
    Duty(hot_keys.NAME, 60.0, hot_keys.run),
    Duty(missed_notifications.NAME, 60.0, missed_notifications.run),
    Duty(purity.NAME, 60.0, purity.run),
    Duty(stale_incidents.NAME, 60.0, stale_incidents.run),
    Duty(canary.NAME, 60.0, canary.run, statement_timeout_s=120.0),
    Duty(prune_statistics.NAME, 60.0, prune_statistics.run),
    Duty(anomalies.NAME, 60.0, anomalies.run),
    Duty(openlineage.NAME, openlineage.EVERY, openlineage.run),
    Duty(retention.NAME, 600.0, retention.run),
    Duty(retain.NAME, 600.0, retain.run, statement_timeout_s=120.0),
    Duty(erasures.LOG, 300.0, erasures.log_part, statement_timeout_s=600.0),
    Duty(cold_ledger.NAME, 60.0, cold_ledger.run, statement_timeout_s=120.0),
    Duty(audits.QUICK, 60.0, audits.quick_audit, statement_timeout_s=120.0),
    Duty(audits.DEEP, 10.0, audits.deep_step, statement_timeout_s=120.0),
    Duty(scrub.NAME, 60.0, scrub.run, statement_timeout_s=120.0),
    Duty(audits.SEALING, 60.0, audits.seal_segments, statement_timeout_s=120.0),
)

NOTICES: tuple[Duty, ...] = (
    Duty(notices.NAME, 5.0, notices.run),
    Duty(notices.AGAIN, 60.0, notices.send_again),
    Duty(notices.HEARTBEAT, 60.0, notices.beat),
)
"""Duties that talk to the outside: on a thread of their own, where there are routes."""

ARCHIVE: tuple[Duty, ...] = (
    Duty(archive.NAME, 60.0, archive.run, statement_timeout_s=120.0),
    Duty(purge.NAME, 60.0, purge.run, statement_timeout_s=120.0),
    Duty(erasures.REST, 300.0, erasures.the_rest, statement_timeout_s=3600.0),
)
"""Duties that ask the archive's store: on a thread of their own, for a store may take its time."""
