"""`refold scrub`: the log against its ledger, and its sealed slices against their figures.

The ledger has the digest of every event's content, so each row that was changed, added or lost has a name. What the
digest does not cover (coordinates, the time of arrival) the figure of a sealed slice of positions does, for the slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import psycopg

from refold import incidents
from refold.log.seal import Figures, Segment, figures, segments
from refold.plans import plan_freely
from refold.upkeep.slices import POSITION_BITS, by_position

WHOLE_LOG = "refold.events"
"""Subject of damage that belongs to no segment: nobody knows where a lost event stood."""
NAMED = 1_000
"""Events of a segment that are named."""

Fault = Literal["changed", "unknown", "missing", "figures", "gone"]


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in the log that is not as it was written.

    Args:
        segment: where.
        fault: an event was `changed`; is `unknown` to the ledger; is `missing`; the `figures` of a sealed slice
            differ; the whole segment is `gone`.
        event_id: which event.
        position: where it stands, or its slice begins.
        detail: more about it.
    """

    segment: str
    fault: Fault
    event_id: str | None = None
    position: int | None = None
    detail: str = ""


@dataclass(slots=True)
class Scrubbed:
    """The outcome.

    Args:
        events: how many were checked.
        segments: how many segments hold them.
        sealed: how many of the events are sealed, and were compared slice by slice too.
        damage: what is wrong, the first of each segment.
    """

    events: int = 0
    segments: int = 0
    sealed: int = 0
    damage: list[Damage] = field(default_factory=list)


def scrub(
    conn: psycopg.Connection,
    *,
    by: str = "refold scrub",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Scrubbed:
    """Verifies the log. Damage opens an incident for its segment; a segment that is right again closes it.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        by: who asks, for the incidents.
        report: told after every segment how many are done, of how many.
    """
    result = Scrubbed()
    known = segments(conn)
    kept = _sealed(conn)
    standing: dict[int, Figures] = {}
    for done, segment in enumerate(known, start=1):
        _segment(conn, segment, standing, result)
        report(done, len(known))
    _compare(known, kept, standing, result)
    _lost(conn, result)
    with conn.transaction():
        _leave_incidents(conn, by, result)
    return result


def _sealed(conn: psycopg.Connection) -> dict[int, Figures]:
    rows = conn.execute(
        "SELECT slice, events, upto::text::bigint, ids, hash FROM refold.sealed WHERE sealed_at IS NOT NULL"
    ).fetchall()
    return {
        int(number): Figures(int(events), int(upto), int(ids), int(total)) for number, events, upto, ids, total in rows
    }


def _segment(conn: psycopg.Connection, segment: Segment, standing: dict[int, Figures], result: Scrubbed) -> None:
    """One segment, in a snapshot of its own."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        plan_freely(conn)
        found = figures(conn, segment.lower, segment.upper)
        rows = conn.execute(
            f"""
            SELECT e.event_id, e.position, i.event_id IS NULL
            FROM refold.events AS e LEFT JOIN refold.event_ids AS i USING (event_id)
            WHERE e.position >= %s AND e.position < %s
              AND i.digest IS DISTINCT FROM refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)
            ORDER BY e.position LIMIT {NAMED}
            """.encode(),
            (segment.lower, segment.upper),
        ).fetchall()
    result.segments += 1
    for number, part in found.items():
        result.events += part.events
        # A slice may end in the next segment.
        standing[number] = standing.get(number, Figures()) + part
    result.damage += [
        Damage(segment.name, "unknown" if unknown else "changed", str(event_id), int(position))
        for event_id, position, unknown in rows
    ]


def _compare(
    known: Sequence[Segment], kept: Mapping[int, Figures], standing: Mapping[int, Figures], result: Scrubbed
) -> None:
    """The sealed slices against what stands there."""
    result.sealed = sum(one.events for one in kept.values())
    differ = {number: one for number, one in kept.items() if standing.get(number, Figures()) != one}
    if not differ:
        return
    for hole in _holes(known, (max(kept) + 1) << POSITION_BITS):
        within = range(hole.lower >> POSITION_BITS, ((hole.upper - 1) >> POSITION_BITS) + 1)
        short = [number for number in within if number in differ]
        lost = sum(differ[number].events - standing.get(number, Figures()).events for number in short)
        if lost > 0:
            result.damage.append(Damage(hole.name, "gone", detail=f"{lost:,} events were sealed there"))
            differ = {number: one for number, one in differ.items() if number not in short}
    for number, one in sorted(differ.items()):
        first = number << POSITION_BITS
        events = standing.get(number, Figures()).events
        what = f"{events:,} events where {one.events:,}" if events != one.events else "as many events as"
        others = "" if events != one.events else ", and not the same"
        result.damage.append(
            Damage(
                next(segment.name for segment in known if max(first, 1) < segment.upper),
                "figures",
                position=first,
                detail=f"{by_position().name(number)}: {what} were sealed{others}",
            )
        )


def _holes(known: Sequence[Segment], end: int) -> Iterator[Segment]:
    """The positions before an end that no segment has, each as the segment that must have had them."""
    lower = 1
    for segment in known:
        if segment.lower > lower:
            yield _missing(lower, segment.lower)
        lower = segment.upper
    if end > lower:
        yield _missing(lower, end)


def _missing(lower: int, upper: int) -> Segment:
    return Segment(f"refold.events_{lower:015}", lower, upper)


def _lost(conn: psycopg.Connection, result: Scrubbed) -> None:
    """The ids in the ledger whose events are not in the log."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        plan_freely(conn)
        # They came in together, in one snapshot they are as many, and the same. Only else is there a need to join.
        same = conn.execute(
            """
            SELECT (SELECT (count(*), sum(hashtextextended(event_id, 0))) FROM refold.event_ids)
                 = (SELECT (count(*), sum(hashtextextended(event_id, 0))) FROM refold.events)
            """
        ).fetchone()
        if same == (True,):
            return
        rows = conn.execute(
            f"""
            SELECT event_id FROM refold.event_ids AS i
            WHERE NOT EXISTS (SELECT FROM refold.events AS e WHERE e.event_id = i.event_id)
            ORDER BY event_id LIMIT {NAMED}
            """.encode()
        ).fetchall()
    # Of the segments that are short, if it is only one, it must have been there.
    short = {one.segment for one in result.damage if one.fault in ("figures", "gone")}
    where = short.pop() if len(short) == 1 else WHOLE_LOG
    result.damage += [Damage(where, "missing", str(event_id)) for (event_id,) in rows]


def _leave_incidents(conn: psycopg.Connection, by: str, result: Scrubbed) -> None:
    damaged = {one.segment: [asdict(d) for d in result.damage if d.segment == one.segment] for one in result.damage}
    for segment, found in damaged.items():
        incidents.detect(conn, "log_damage", segment, by=by, evidence={"damage": found[:20], "found": len(found)})
    for incident in incidents.find(conn, "i.kind = 'log_damage' AND i.resolved_at IS NULL"):
        if incident.subject not in damaged:
            incidents.resolve(conn, "log_damage", incident.subject, by=by, outcome={"found": "as it was written"})
