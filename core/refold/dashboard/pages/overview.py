"""`/`: are the metrics right, how fresh are they, and does anything need a person?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from refold.dashboard.ask import Ask
from refold.dashboard.wording import BY_ITSELF, Need, needs
from refold.inspect.health import BuildHealth, Health
from refold.inspect.incidents import Told, incidents
from refold.inspect.latencies import Latencies, Minute, latencies, together
from refold.inspect.proofs import Hour, strips
from refold.model.quantiles import quantile

TOGETHER = 50
"""Most metrics on a page."""
DRAWN = 60
"""Most builds whose minutes are read; the latencies of an hour of more builds would be many rows."""
RECENT = 5
"""Minutes over which freshness is told."""


@dataclass(frozen=True, slots=True)
class Line:
    """A metric in the list.

    Args:
        build: its live build.
        hours: its last hours of proofs.
        fresh_s: 99th percentile of freshness, seconds; None without recent events.
        activity: events a minute.
    """

    build: BuildHealth
    hours: list[Hour]
    fresh_s: float | None
    activity: list[int]


@dataclass(frozen=True, slots=True)
class Overview:
    """What the overview shows.

    Args:
        health: the health of all metrics.
        lines: the metrics on this page.
        found: how many metrics match the search.
        page: number of the page, from 1.
        pages: how many there are.
        search: the words that were searched for.
        order: `worst` or `name`.
        fresh_s: 99th percentile of freshness of all live builds, seconds.
        minutes: events and freshness of all live builds by minute; empty with many builds.
        needs: what needs a person.
        by_itself: what ended without anybody within a day, newest first, each with how often it did.
        soon: incidents that workers are ending now.
    """

    health: Health
    lines: list[Line]
    found: int
    page: int
    pages: int
    search: str
    order: str
    fresh_s: float | None
    minutes: list[Minute]
    needs: list[Need]
    by_itself: list[tuple[Told, int]]
    soon: list[Told]


def read(ask: Ask) -> Overview:
    """Read the overview."""
    health = ask.health()
    search = ask.query.get("q", "").strip()[:100]
    order = ask.choice("order", "worst", "name")
    live = [one for one in health.live if search.casefold() in one.metric.casefold()]
    if order == "name":
        live.sort(key=lambda one: one.metric)
    pages = max(1, -(-len(live) // TOGETHER))
    page = min(ask.number("page", 1, 10**6), pages)
    shown = live[(page - 1) * TOGETHER : page * TOGETHER]
    few = len(health.builds) <= DRAWN
    hours = ask.observe(lambda conn: strips(conn, [one.build_id for one in shown]))
    wanted_builds = [one.build_id for one in (health.live if few else shown)]
    measured = ask.observe(lambda conn: latencies(conn, wanted_builds, stage="fresh", minutes=60 if few else RECENT))
    recent = ask.observe(lambda conn: together(conn, minutes=RECENT))
    happened = ask.read(lambda conn: incidents(conn, timedelta(days=1), most=60))
    ended = [one for one in happened.told if one.by_itself]
    wanted = needs(health, happened.open)
    named = {one.incident_id for one in wanted}
    return Overview(
        health,
        [_line(one, hours.get(one.build_id, []), measured, few) for one in shown],
        len(live),
        page,
        pages,
        search,
        order,
        quantile(recent, 0.99),
        measured.by_minute("fresh") if few else [],
        wanted,
        _together(ended)[:6],
        [one for one in happened.open if one.incident.incident_id not in named and one.incident.kind in BY_ITSELF],
    )


def _line(one: BuildHealth, hours: list[Hour], measured: Latencies, few: bool) -> Line:
    recent = quantile(measured.summed("fresh", build_id=one.build_id, minutes=RECENT), 0.99)
    activity = [minute.events for minute in measured.by_minute("fresh", build_id=one.build_id)] if few else []
    return Line(one, hours, recent, activity)


def _together(ended: list[Told]) -> list[tuple[Told, int]]:
    """Return the newest incident of each kind and subject, and how many there were."""
    newest: dict[tuple[str, str], tuple[Told, int]] = {}
    for one in ended:
        of = (one.incident.kind, one.incident.subject)
        first, number = newest.get(of, (one, 0))
        newest[of] = (first, number + 1)
    return list(newest.values())
