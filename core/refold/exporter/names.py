"""The names of all that a scrape shows, with their labels and meaning: one list for the exporter, the docs and tests.

Never a label: a user, an id of an event or a trace, the name of a table (each build has another), the text of an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Type = Literal["counter", "gauge", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class Name:
    """A metric family of Prometheus.

    Args:
        name: its name; of a counter without `_total`, of an info without `_info`.
        type: its type.
        labels: its labels.
        help: what it is.
    """

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str

    @property
    def shown(self) -> str:
        """Return the name as a query has it."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.type, "")


def _names(*given: tuple[str, Type, str, str]) -> dict[str, Name]:
    return {name: Name(f"refold_{name}", type_, tuple(labels.split()), help_) for name, type_, labels, help_ in given}


DEPLOYMENT = _names(
    ("up", "gauge", "", "Whether the database answered the scrape. If 0, nothing else is shown."),
    ("build", "info", "version server", "Versions of refold and of the database server."),
    ("events", "counter", "", "Events that the log has taken."),
    (
        "refused_events", "counter", "answer",
        "Input that is not in the log again or at all: duplicate, conflict, invalid. The same conflict counts once.",
    ),
    ("lag_limit_seconds", "gauge", "", "How far a metric may be behind, from refold.settings."),
    ("healed_rows", "counter", "projection kind", "Rows that were healed: missing, orphan, drifted."),
    ("incidents", "counter", "kind", "Incidents that were detected."),
    ("open_incidents", "gauge", "kind", "Incidents that are open."),
    ("duty_last_run_timestamp_seconds", "gauge", "duty", "When the last run of a duty started."),
    ("duty_failures", "gauge", "duty", "Failed runs of a duty since the last that succeeded."),
    ("workers", "gauge", "", "Sessions of workers."),
    ("holders", "gauge", "", "Open transactions that have written to the log; their events are not visible yet."),
    (
        "oldest_holder_age_seconds", "gauge", "",
        "Age of the oldest of them; absent if the login may not see it (pg_read_all_stats).",
    ),
    ("pressure_level", "gauge", "signal", "What holds producers back: 0 fine, 1 bulk waits, 2 producers are refused."),
    ("pressure_value", "gauge", "signal", "What was measured: seconds of lag, or the used part."),
    ("pressure_last_measured_timestamp_seconds", "gauge", "signal", "When it was measured last."),
    ("sink_active", "gauge", "sink projection", "Whether the sink delivers: 0 if it is paused or stopped."),
    ("sink_circuit_open", "gauge", "sink projection", "Whether deliveries fail, so that single attempts are made."),
    ("sink_failures", "gauge", "sink projection", "Failed deliveries since the last that succeeded."),
    ("sink_delivered_rows", "counter", "sink projection", "Rows that the receiver has confirmed."),
    ("sink_last_delivered_timestamp_seconds", "gauge", "sink projection", "When rows were delivered last; 0: never."),
    ("sink_undelivered_rows", "gauge", "sink projection", "Rows that the receiver refused; counted up to 1,000."),
    (
        "sink_queued_messages", "gauge", "sink projection",
        "Messages in the queue, or a few more; absent if the login may not see it.",
    ),
    ("sink_oldest_message_age_seconds", "gauge", "sink projection", "Age of the oldest message; 0 without any."),
    ("log_first_position", "gauge", "", "First position of the log that was not purged."),
    ("log_sealed_position", "gauge", "", "First position of the log that may still be written: below, all is sealed."),
    ("archived_segments", "counter", "", "Segments of which the archive has got a verified file, once each."),
    ("archived_events", "counter", "", "Events in these files."),
    ("archived_bytes", "counter", "", "Size of these files, as they were written first."),
    ("purged_segments", "counter", "", "Segments that have left the log."),
    ("purged_events", "counter", "", "Events in these segments."),
    ("cold_ids", "gauge", "", "Ids of purged events in the cold ledger, about."),
    (
        "archive_waiting_segments", "gauge", "",
        "Sealed segments that are not archived; counted up to 100. Absent without an archive.",
    ),
    (
        "archive_oldest_waiting_age_seconds", "gauge", "",
        "How long ago the first of them was sealed; 0 without any. Absent without an archive.",
    ),
    (
        "archive_after_seconds", "gauge", "",
        "How long after it was sealed a segment is archived, from refold.settings. Absent without an archive.",
    ),
    (
        "archive_last_archived_timestamp_seconds", "gauge", "",
        "When the last segment was archived; 0: never. Absent without an archive.",
    ),
    (
        "archive_failures", "gauge", "",
        "Attempts to write the archive that failed since the last that succeeded. Absent without an archive.",
    ),
)  # fmt: skip
"""Of the deployment."""

ARCHIVED = (
    "archived_segments", "archived_events", "archived_bytes", "purged_segments", "purged_events", "cold_ids",
)  # fmt: skip
"""Those that are running totals."""

BUILDS = _names(
    ("applied_events", "counter", "projection", "Events that pages have applied to the live build."),
    ("applied_pages", "counter", "projection", "Pages that were applied to the live build."),
    ("apply_seconds", "counter", "projection", "Time that these pages took."),
    ("unread_events", "gauge", "projection", "Events that the metric has not applied; an estimate beyond 100."),
    ("oldest_unread_age_seconds", "gauge", "projection", "How long the oldest of them has waited; 0 without any."),
    ("last_applied_timestamp_seconds", "gauge", "projection", "When events were applied last; 0: never."),
    ("left_out_events", "gauge", "projection", "Events that are missing from the metric, as dead letters."),
    ("failing", "gauge", "projection", "Whether the next page fails."),
    (
        "table_size_bytes",
        "gauge",
        "projection",
        "Size of the metric's table without indexes, when it was last vacuumed or analyzed.",
    ),
    (
        "last_proved_timestamp_seconds", "gauge", "projection depth",
        "When an audit (depth any, or deep) last found the metric and what it reads as they must be; 0: not proved.",
    ),
    (
        "kept_from_timestamp_seconds", "gauge", "projection",
        "First day whose rows the metric keeps; 0: none has gone yet. Absent where all rows are kept (refold retain).",
    ),
    (
        "wanted_from_timestamp_seconds", "gauge", "projection",
        "First day whose rows are wanted, of a month with the whole of it: older rows go. Absent where all are.",
    ),
    (
        "latency_seconds", "histogram", "projection stage",
        "How long events took: waiting for their page, applying it, and until they could be queried (fresh).",
    ),
)  # fmt: skip
"""Of each live build."""

NAMES = DEPLOYMENT | BUILDS
"""All, by name without prefix."""
