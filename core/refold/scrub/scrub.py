"""`refold scrub`: the log against its ledger, and its sealed segments against their figures.

The ledger has the digest of every event's content, so each row that was changed, added or lost has a name. What the
digest does not cover (coordinates, the time of arrival) the figure of a sealed segment does, for the segment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal

import psycopg

from refold import incidents
from refold.log.seal import WITHIN, Segment, figures, segments

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
        fault: an event was `changed`; is `unknown` to the ledger; is `missing`; the `figures` of a sealed segment
            differ; the whole segment is `gone`.
        event_id: which event.
        position: where it stands.
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
        sealed: how many of these are sealed, and were compared as a whole too.
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
    for done, segment in enumerate(known, start=1):
        _segment(conn, segment, kept.get(segment.lower), result)
        report(done, len(known))
    for lower in kept.keys() - {segment.lower for segment in known}:
        name = f"refold.events_{lower:015}"
        result.damage.append(Damage(name, "gone", detail=f"{kept[lower][0]:,} events were sealed there"))
    _lost(conn, result)
    with conn.transaction():
        _leave_incidents(conn, by, result)
    return result


def _sealed(conn: psycopg.Connection) -> dict[int, tuple[int, int]]:
    rows = conn.execute("SELECT lower_position, events, hash FROM refold.sealed WHERE sealed_at IS NOT NULL").fetchall()
    return {int(lower): (int(events), int(total)) for lower, events, total in rows}


def _segment(conn: psycopg.Connection, segment: Segment, kept: tuple[int, int] | None, result: Scrubbed) -> None:
    """One segment, in a snapshot of its own."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute(
            "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = on; SET LOCAL enable_sort = on"
        )
        events, total = figures(conn, segment)
        result.events += events
        result.segments += 1
        rows = conn.execute(
            f"""
            SELECT e.event_id, e.position, i.event_id IS NULL
            FROM refold.events AS e LEFT JOIN refold.event_ids AS i USING (event_id)
            WHERE {WITHIN} AND i.digest IS DISTINCT FROM refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)
            ORDER BY e.position LIMIT {NAMED}
            """.encode(),
            segment.bounds,
        ).fetchall()
    result.damage += [
        Damage(segment.name, "unknown" if unknown else "changed", str(event_id), int(position))
        for event_id, position, unknown in rows
    ]
    if kept is not None:
        result.sealed += 1
        if kept != (events, total):
            detail = f"{events:,} events where {kept[0]:,} were sealed" if events != kept[0] else ""
            result.damage.append(
                Damage(segment.name, "figures", detail=detail or "as many events as were sealed, and not the same")
            )


def _lost(conn: psycopg.Connection, result: Scrubbed) -> None:
    """The ids in the ledger whose events are not in the log."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute(
            "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = on; SET LOCAL enable_sort = on"
        )
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
