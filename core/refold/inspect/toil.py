"""Toil: how much of people's time incidents and commands took, from recorded times alone. Pure.

Nobody estimates: an incident is work from the moment at which a person took it on, or touched it, to its end. A figure
without such a time counts a price that is set beforehand, and is counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from refold.store.incidents import LISTENER, ONLY_NOTICED

INTERRUPT = timedelta(minutes=15)
"""Touches of a person that are less apart are one interrupt."""
MOST_MINUTES = 60.0
"""Most minutes that an incident counts: a person who took one on before the weekend did not work on it all the time."""
LEAST_MINUTES = 5.0
"""Minutes of an interrupt, and fewest of an incident that was touched."""
REPEATS = timedelta(days=30)
"""Time within which an incident of the same kind and subject is the same trouble again."""
PRICES: Mapping[str, float] = {
    "dead_letters": 20.0,
    "log_damage": 45.0,
    "foreign_cluster": 45.0,
    "impure_transform": 30.0,
    "stalled": 20.0,
    "canary_aborted": 20.0,
    "capture_gap": 15.0,
    "undelivered": 15.0,
}
"""Minutes of an incident that a person ended and neither took on nor touched, by kind."""
PRICE = 10.0
"""Minutes of those of any other kind."""
BY_PEOPLE = frozenset(
    {
        "dead_letters",
        "log_damage",
        "impure_transform",
        "foreign_cluster",
        "capture_gap",
        "undelivered",
        "canary_aborted",
    }
)
"""Kinds without an end that refold reaches alone, though a duty may be the first to see the end: somebody corrects a
file and deploys it, and then a worker closes what the aborted canary has left open."""
BY_MACHINE = f"""(i.resolved_by = '{LISTENER}'
        OR EXISTS (SELECT FROM refold.duties AS d WHERE d.name = i.resolved_by))"""
"""SQL of whether a worker ended an incident `i`, by itself or by a duty."""


def took_person(kind: str, *, by_machine: bool, acknowledged: bool) -> bool:
    """Return whether an incident that is over took a person. Pure.

    Args:
        kind: its kind.
        by_machine: whether a worker ended it.
        acknowledged: whether a person took it on.
    """
    return not by_machine or acknowledged or kind in BY_PEOPLE


@dataclass(frozen=True, slots=True)
class Ended:
    """An incident that is over.

    Args:
        incident_id: its number.
        kind: its kind.
        subject: the affected object.
        started_at: when it began, as far as known.
        detected_at: when it was detected.
        resolved_at: when it was over.
        by_machine: whether a worker ended it.
        acknowledged_at: when a person took it on; None: nobody did.
    """

    incident_id: int
    kind: str
    subject: str
    started_at: datetime
    detected_at: datetime
    resolved_at: datetime
    by_machine: bool
    acknowledged_at: datetime | None = None

    @property
    def human(self) -> bool:
        """Return whether it took a person."""
        return took_person(self.kind, by_machine=self.by_machine, acknowledged=self.acknowledged_at is not None)


@dataclass(frozen=True, slots=True)
class Touch:
    """A command that a person ran, or a button that was pressed.

    Args:
        at: when it began.
        by: the person.
        incident_id: the incident that it was about, if that is known.
    """

    at: datetime
    by: str
    incident_id: int | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """Times to detect and to recover, seconds; None where none is known.

    Args:
        incidents: number of incidents.
        detect: median of the times from start to detection.
        detect_p95: 95th percentile of the same.
        recover: median of the times from detection to the end.
        recover_p95: 95th percentile of the same.
    """

    incidents: int
    detect: float | None
    detect_p95: float | None
    recover: float | None
    recover_p95: float | None


@dataclass(frozen=True, slots=True)
class Toil:
    """The toil of a time span.

    Args:
        hours: hands-on hours: of incidents that repeat, and five minutes of each interrupt about nothing recorded.
        work_hours: hands-on hours of human incidents that do not repeat: decisions, and no toil.
        priced_hours: part of both that has no recorded time but a price.
        interrupts: interrupts of people.
        autonomy: part of the ended incidents that ended without anybody, 0 to 1; None without incidents.
        machine: times of incidents that ended without anybody.
        person: times of the others.
        hours_per_million_events: `hours` for each million accepted events; None without events.
        hours_per_100_projections: `hours` for each hundred live projections; None without projections.
    """

    hours: float
    work_hours: float
    priced_hours: float
    interrupts: int
    autonomy: float | None
    machine: Times
    person: Times
    hours_per_million_events: float | None
    hours_per_100_projections: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as a dict for JSON."""
        return asdict(self)


def toil(
    incidents: Sequence[Ended],
    touches: Iterable[Touch],
    *,
    since: datetime,
    events: int,
    projections: int,
) -> Toil:
    """Return the toil of a time span.

    Args:
        incidents: incidents that ended in it; those that ended up to `REPEATS` before it only tell repetitions.
        touches: what people did in it.
        since: its begin.
        events: events that the log accepted in it.
        projections: live projections.
    """
    clusters = interrupts(touches)
    ended = [one for one in incidents if one.resolved_at >= since]
    known = {one.incident_id for one in ended}
    hours = work = priced = 0.0
    for one in ended:
        if not one.human:
            continue
        minutes, recorded = hands_on(one, [touch for cluster in clusters for touch in cluster])
        if not recorded:
            priced += minutes / 60
        if repeats(one, incidents):
            hours += minutes / 60
        else:
            work += minutes / 60
    idle = [one for one in clusters if not any(touch.incident_id in known for touch in one)]
    hours += len(idle) * LEAST_MINUTES / 60
    machine = [one for one in ended if not one.human]
    return Toil(
        hours,
        work,
        priced,
        len(clusters),
        len(machine) / len(ended) if ended else None,
        _times(machine),
        _times([one for one in ended if one.human]),
        hours / events * 1e6 if events else None,
        hours / projections * 100 if projections else None,
    )


def interrupts(touches: Iterable[Touch]) -> list[list[Touch]]:
    """Return touches in clusters: those of a person that are at most `INTERRUPT` after the one before."""
    found: list[list[Touch]] = []
    latest: dict[str, list[Touch]] = {}
    for one in sorted(touches, key=lambda touch: touch.at):
        cluster = latest.get(one.by)
        if cluster is not None and one.at - cluster[-1].at <= INTERRUPT:
            cluster.append(one)
        else:
            latest[one.by] = [one]
            found.append(latest[one.by])
    return found


def hands_on(one: Ended, touches: Sequence[Touch]) -> tuple[float, bool]:
    """Return the minutes that an incident took people, and whether they come from recorded times."""
    if one.acknowledged_at is not None:
        return _bounded(one.resolved_at - one.acknowledged_at, 0.0), True
    of = [touch.at for touch in touches if touch.incident_id == one.incident_id]
    if of:
        return _bounded(max(of) - min(of), LEAST_MINUTES), True
    return PRICES.get(one.kind, PRICE), False


def repeats(one: Ended, incidents: Iterable[Ended]) -> bool:
    """Return whether there was the same trouble within `REPEATS` before it: the kind, and the projection or object."""
    return any(
        other.kind == one.kind
        and _object(other.subject) == _object(one.subject)
        and other.incident_id != one.incident_id
        and timedelta(0) <= one.started_at - other.started_at <= REPEATS
        for other in incidents
    )


def _object(subject: str) -> str:
    """Return the projection of a build's table, so that a rebuild is no other trouble."""
    return subject.split("__")[0]


def _bounded(span: timedelta, least: float) -> float:
    return min(max(span.total_seconds() / 60, least), MOST_MINUTES)


def _times(incidents: Sequence[Ended]) -> Times:
    # Of some kinds nobody knows when they began.
    known = [one for one in incidents if one.kind not in ONLY_NOTICED]
    detect = sorted((one.detected_at - one.started_at).total_seconds() for one in known)
    recover = sorted((one.resolved_at - one.detected_at).total_seconds() for one in incidents)
    return Times(
        len(incidents),
        median(detect) if detect else None,
        _p95(detect) if detect else None,
        median(recover) if recover else None,
        _p95(recover) if recover else None,
    )


def _p95(ordered: Sequence[float]) -> float:
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
