"""`refold scrub`: the log against its ledger, and its sealed slices against their checksums.

The ledger has the digest of every event's content and where it stands, so each row that was changed, added or lost has
a name. What the digest does not cover (coordinates, the time of arrival) the checksum of a sealed slice of positions
does, for the slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psycopg

from refold.model.stream.slices import POSITION_BITS
from refold.store.log.damage import leave, resolve_others
from refold.store.log.integrity import Damage, edge, look, missing, whole
from refold.store.log.seal import Segment, segments


@dataclass(slots=True)
class Scrubbed:
    """The outcome.

    Args:
        events: how many were checked.
        segments: how many segments hold them.
        sealed: how many of the events are sealed, and were compared slice by slice too.
        damage: what is wrong, the first of each portion of the log.
    """

    events: int = 0
    segments: int = 0
    sealed: int = 0
    damage: list[Damage] = field(default_factory=list)


def scrub(
    conn: psycopg.Connection,
    *,
    by: str = "refold scrub",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scrubbed:
    """Verifies the log. Damage opens an incident for its segment; a segment that is right again closes it.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        by: who asks, for the incidents.
        progress: told after every portion how many are done, of how many.
    """
    result = Scrubbed()
    slices: set[int] = set()
    parts = whole(conn)
    for done, part in enumerate(parts, start=1):
        with conn.transaction():
            found = look(conn, part, ledger=True)
        result.events += found.events
        result.sealed += found.sealed
        result.damage += found.damage
        slices |= found.slices
        progress(done, len(parts))
    known = segments(conn)
    result.segments = len(known)
    gone = _gone(conn, known, result.damage)
    result.damage = [*gone, *(one for one in result.damage if one.fault != "checksums" or not _among(one, gone))]
    with conn.transaction():
        leave(conn, result.damage, slices, by=by)
        resolve_others(conn, result.damage, by=by)
    return result


def _gone(conn: psycopg.Connection, known: Sequence[Segment], damage: Sequence[Damage]) -> list[Damage]:
    """The segments that are not there, of which it is known that they had events."""
    if not damage:
        return []
    _, last = edge(conn)
    found = []
    for hole in _holes(known, (last + 1) << POSITION_BITS):
        lost = sum(one.fault == "missing" for one in damage if hole.lower <= (one.position or 0) < hole.upper)
        if lost:
            found.append(Damage(hole.name, "gone", position=hole.lower, detail=f"{lost:,} events or more stood there"))
    return found


def _among(checksum: Damage, gone: Sequence[Damage]) -> bool:
    """Whether a slice that differs is one of a segment that is gone."""
    return any(checksum.segment == one.segment for one in gone)


def _holes(known: Sequence[Segment], end: int) -> Iterator[Segment]:
    """The positions before an end that no segment has, each as the segment that must have had them."""
    lower = 1
    for segment in known:
        if segment.lower > lower:
            yield Segment(missing(lower), lower, segment.lower)
        lower = segment.upper
    if end > lower:
        yield Segment(missing(lower), lower, end)
