"""`refold scrub`: comparing the log with its ledger, and its sealed slices with their checksums.

The ledger has the position of every event and a digest of its content, so the scrub names each changed, added or lost
row. The digest does not cover coordinates and time of arrival; the checksum of a sealed slice does, for the slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import psycopg

from refold import tracing
from refold.model.stream.slices import POSITION_BITS
from refold.store.log import cold_ledger
from refold.store.log.damage import leave, leave_cold, resolve_others
from refold.store.log.integrity import Damage, edge, floor, look, missing, whole
from refold.store.log.seal import Segment, segments


@dataclass(slots=True)
class Scrubbed:
    """The outcome of a scrub.

    Args:
        events: number of events checked, all of them in the log.
        segments: number of segments that hold them.
        sealed: number of these events in sealed slices, whose checksums were compared too.
        purged: number of purged events, of which the checksums were compared; the archive alone has their rows.
        archived_ids: ids of purged events in the cold ledger, all of which were compared.
        damage: the first findings of each portion of the log, and of the cold ledger.
    """

    events: int = 0
    segments: int = 0
    sealed: int = 0
    purged: int = 0
    archived_ids: int = 0
    damage: list[Damage] = field(default_factory=list)


def scrub(
    conn: psycopg.Connection,
    *,
    by: str = "refold scrub",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scrubbed:
    """Verify the log and return the outcome; open an incident for each damaged segment, and resolve the others.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        by: name of the program, for the incidents.
        progress: called after every portion with the number of portions done and their total.
    """
    with tracing.work("scrub", "events", by=by) as span:
        result = _scrubbed(conn, by, progress)
        span.note(events=result.events, damage=len(result.damage))
    return result


def _scrubbed(conn: psycopg.Connection, by: str, progress: Callable[[int, int], None]) -> Scrubbed:
    result = Scrubbed()
    slices: set[int] = set()
    parts = whole(conn)
    for done, part in enumerate(parts, start=1):
        with conn.transaction():
            found = look(conn, part, ledger=True)
        result.events += found.events
        result.sealed += found.sealed
        result.purged += found.purged
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
        cold = cold_ledger.look(conn)
        leave_cold(conn, cold, by=by, whole=True)
    result.archived_ids = cold.ids
    if not cold.intact:
        result.damage.append(Damage(cold_ledger.TABLE, "checksums", detail=str(cold)))
    return result


def _gone(conn: psycopg.Connection, known: Sequence[Segment], damage: Sequence[Damage]) -> list[Damage]:
    """Return the missing segments that had events, as damage."""
    if not damage:
        return []
    _, last = edge(conn)
    found = []
    for hole in _holes(known, floor(conn), (last + 1) << POSITION_BITS):
        lost = sum(one.fault == "missing" for one in damage if hole.lower <= (one.position or 0) < hole.upper)
        if lost:
            found.append(Damage(hole.name, "gone", position=hole.lower, detail=f"{lost:,} events or more stood there"))
    return found


def _among(checksum: Damage, gone: Sequence[Damage]) -> bool:
    """Return whether a differing slice belongs to a missing segment."""
    return any(checksum.segment == one.segment for one in gone)


def _holes(known: Sequence[Segment], lower: int, end: int) -> Iterator[Segment]:
    """Yield the ranges of positions from one to an end that no segment covers, each as a segment."""
    for segment in known:
        if segment.lower > lower:
            yield Segment(missing(lower), lower, segment.lower)
        lower = segment.upper
    if end > lower:
        yield Segment(missing(lower), lower, end)
