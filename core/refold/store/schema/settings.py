"""What an operator may set: the row of `refold.settings`, but for what refold keeps there for itself.

`UPDATE refold.settings SET lag_limit = …` changes a setting for all workers. Statements that compare a column with a
setting read it themselves, in their own snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Literal

import psycopg
from psycopg.rows import class_row

from refold.postgres.rows import one_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The limits, in seconds unless stated otherwise.

    Args:
        segment_size: positions of a segment of the log, about: segments end where slices end.
        segments_ahead: empty segments that stand ready.
        max_dead_letters: so many of a build may wait; beyond, the projection is taken for broken.
        dead_letter_share: of a page, so many may fail; beyond, the same.
        too_many_dead_letters: what a live build does then.
        lag_limit: a live metric may be so far behind the log, seconds.
        stalled_after: a build with work may stand still for so long, seconds.
        held_back_after: a transaction that has written to the log may stay open for so long, seconds.
        held_snapshot_after: a snapshot may be held for so long, seconds.
        impure_sample: events of each transform that are evaluated twice at a time.
        latency_days: how long latency figures are kept.
        deep_audit_days: in which the rolling deep audit comes round once.
        rejected_days: after which rejected input is removed, since it was seen last.
        repair_days: after which repairs are, and letters that were released.
        incident_days: after which incidents are, since they were over.
        build_days: after which builds are, since they were retired.
        scrub_days: in which all of the log is scrubbed once.
        lag_stop: a live metric so far behind refuses producers, seconds; None never does.
        disk_limit: bytes that the database and its WAL may take together; None is unknown.
        outbox_messages: messages of a sink that may wait; beyond, they are dropped and slices are compared.
        outbox_mib: size that they may have, MiB.
        outbox_hours: how old they may become, hours.
        trace_days: how long it is kept which trace appended an event.
        archive: where the archive is; None: there is none.
        archive_after: so long after a segment was sealed it is archived, seconds.
        keep_log: so long after a segment was sealed it may leave the log, once it is archived; None: it stays.
        cold_buckets: buckets of the cold ledger, a power of two; None until the first events are purged.
        anomaly_budget: false alarms a week that the tests for anomalies may give, of all series together.
        unknown_versions: what happens to an event of a version without a contract, if its action has contracts.
        erasure_keeps: fields of an erased person's metadata that stay.
        backups_kept: so long backups of the database are kept; None: refold does not know.
        versions_kept: so long the archive's bucket keeps former versions of objects; None: refold does not know.
    """

    segment_size: int = 1_048_576
    segments_ahead: int = 2
    max_dead_letters: int = 100
    dead_letter_share: float = 0.5
    too_many_dead_letters: Literal["go on", "stop"] = "go on"
    lag_limit: int = 60
    stalled_after: int = 300
    held_back_after: int = 60
    held_snapshot_after: int = 60
    impure_sample: int = 20
    latency_days: int = 30
    deep_audit_days: int = 7
    rejected_days: int = 90
    repair_days: int = 400
    incident_days: int = 400
    build_days: int = 90
    scrub_days: int = 7
    lag_stop: int | None = None
    disk_limit: int | None = None
    outbox_messages: int = 10_000
    outbox_mib: int = 256
    outbox_hours: int = 24
    trace_days: int = 7
    archive: str | None = None
    archive_after: int = 86_400
    keep_log: timedelta | None = None
    cold_buckets: int | None = None
    anomaly_budget: float = 1.0
    unknown_versions: Literal["accept", "warn", "reject"] = "warn"
    erasure_keeps: list[str] = field(default_factory=list)
    backups_kept: timedelta | None = None
    versions_kept: timedelta | None = None


_COLUMNS = ", ".join(one.name for one in fields(Settings))


def read_settings(conn: psycopg.Connection) -> Settings:
    """Returns the settings in force.

    Args:
        conn: may read `refold.settings`.
    """
    return one_row(conn, f"SELECT {_COLUMNS} FROM refold.settings".encode(), row=class_row(Settings))
