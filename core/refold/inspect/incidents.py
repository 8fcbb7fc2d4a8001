"""Incidents of a time span as people read them, with how soon they were found and over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import psycopg
from psycopg.rows import dict_row

from refold.inspect.evidence import done, seen
from refold.inspect.toil import BY_MACHINE, took_person
from refold.postgres.rows import one_row
from refold.store.incidents import ONLY_NOTICED, Incident, Kind, inspects


@dataclass(frozen=True, slots=True)
class Told:
    """An incident, as people read it.

    Args:
        incident: the incident; for an observer without evidence.
        seen: what was found, as a sentence; empty for an observer.
        done: what resolved it, as a sentence; empty for an observer.
        by_itself: whether it is over, and took no person.
        candidate: whether it is about a build that was not live all the time: analysts' numbers do not have it.
    """

    incident: Incident
    seen: str
    done: str
    by_itself: bool
    candidate: bool = False

    @property
    def start_known(self) -> bool:
        """Return whether its start is known; otherwise it says when it was noticed."""
        return self.incident.kind not in ONLY_NOTICED

    def as_dict(self) -> dict[str, Any]:
        """Return the incident as a dict for JSON."""
        return asdict(self.incident) | {
            "seen": self.seen,
            "done": self.done,
            "by_itself": self.by_itself,
            "candidate": self.candidate,
        }


@dataclass(frozen=True, slots=True)
class Spans:
    """How soon incidents of a kind were found and over.

    Args:
        number: how many there were.
        open: how many are open.
        by_itself: how many of those that are over took no person.
        found_median: median from start to detection, seconds; None where starts are not known.
        found_p95: the same for all but one in twenty.
        over_median: median from detection to the end, seconds; None while all are open.
        over_p95: the same for all but one in twenty.
    """

    kind: Kind
    number: int
    open: int
    by_itself: int
    found_median: float | None
    found_p95: float | None
    over_median: float | None
    over_p95: float | None


MOST = 1_000
"""Most incidents that are shown."""


@dataclass(frozen=True, slots=True)
class Incidents:
    """Incidents of a time span.

    Args:
        at: time of the database, UTC.
        since: start of the span, UTC.
        told: open incidents, then those that are over, newest first.
        spans: how soon they were found and over, by kind.
        cut: there are more; only the newest are here.
    """

    at: datetime
    since: datetime
    told: list[Told]
    spans: list[Spans]
    cut: bool

    @property
    def open(self) -> list[Told]:
        """Return the open ones."""
        return [one for one in self.told if one.incident.resolved_at is None]


def incidents(conn: psycopg.Connection, span: timedelta, *, most: int = MOST) -> Incidents:
    """Return the incidents that are open, or were so within a time span.

    Args:
        conn: may act as refold_observer, who gets no evidence.
        span: its length.
        most: how many, newest first.
    """
    (at,) = one_row(conn, "SELECT clock_timestamp()")
    found = _newest(conn, span, most + 1)
    cut = len(found) > most
    told = [_told(*one) for one in found[:most]]
    told.sort(key=lambda one: one.incident.resolved_at is not None)
    return Incidents(at, at - span, told, spans(told), cut)


def _told(one: Incident, by_machine: bool, candidate: bool) -> Told:
    over = one.resolved_at is not None
    person = took_person(one.kind, by_machine=by_machine, acknowledged=one.acknowledged_at is not None)
    return Told(one, seen(one.kind, one.evidence), done(one.kind, one.outcome or {}), over and not person, candidate)


def _newest(conn: psycopg.Connection, span: timedelta, most: int) -> list[tuple[Incident, bool, bool]]:
    """Return incidents, the open ones first, each with whether a worker ended it, and whether it is of a candidate."""
    everything = inspects(conn)
    evidence = "i.evidence, i.outcome" if everything else "'{}'::jsonb AS evidence, NULL::jsonb AS outcome"
    with conn.cursor(row_factory=dict_row) as cursor:
        query = f"""
            SELECT i.incident_id, i.kind, i.subject, i.started_at, i.detected_at, i.detected_by, i.resolved_at,
                   i.resolved_by, {evidence}, i.acknowledged_at, i.acknowledged_by,
                   {BY_MACHINE} AS by_machine,
                   EXISTS (
                       SELECT FROM refold.builds_now AS b
                       WHERE b.table_name = i.subject
                         AND coalesce(b.promoted_at, 'infinity') > coalesce(i.resolved_at, clock_timestamp())
                   ) AS candidate
            FROM refold.incidents AS i
            WHERE i.resolved_at IS NULL OR i.detected_at >= clock_timestamp() - %(span)s
               OR i.resolved_at >= clock_timestamp() - %(span)s
            ORDER BY i.resolved_at IS NOT NULL, i.incident_id DESC LIMIT %(most)s
        """
        rows = cursor.execute(query.encode(), {"span": span, "most": most}).fetchall()
    about = [(bool(row.pop("by_machine")), bool(row.pop("candidate"))) for row in rows]
    return [(Incident(**row), *beside) for row, beside in zip(rows, about, strict=True)]


def spans(found: Iterable[Told]) -> list[Spans]:
    """Return how soon incidents were found and over, by kind. Pure."""
    kinds: dict[Kind, list[Told]] = {}
    for one in found:
        kinds.setdefault(one.incident.kind, []).append(one)
    result = []
    for kind, told in sorted(kinds.items()):
        ones = [one.incident for one in told]
        finding = [(one.detected_at - one.started_at).total_seconds() for one in ones if kind not in ONLY_NOTICED]
        ended = [one for one in ones if one.resolved_at is not None]
        ending = [(one.resolved_at - one.detected_at).total_seconds() for one in ended if one.resolved_at is not None]
        result.append(
            Spans(
                kind,
                len(ones),
                len(ones) - len(ended),
                sum(one.by_itself for one in told),
                median(finding) if finding else None,
                _p95(finding),
                median(ending) if ending else None,
                _p95(ending),
            )
        )
    return result


def _p95(values: Sequence[float]) -> float | None:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))] if values else None
