"""The verification of the log, slice by slice, against sealed checksums and the ledger.

A slice of positions that is sealed has its checksums: how many events, and the sum of the hashes of all that is in
them. What is not sealed yet has the ledger, which knows of each event where it stands and the digest of its content.
Both are read in the same range of positions, so that a look costs what the slices hold, however long the log is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import psycopg

from refold.errors import BuildError
from refold.model.stream.slices import LAST, POSITION_BITS, Range, by_position, runs
from refold.postgres.rows import one_row
from refold.postgres.session import plan_freely
from refold.store.log.seal import (
    DIFFERS,
    PAIRED,
    TOGETHER,
    Segment,
    SliceChecksum,
    checksums,
    purged,
    sealed,
    segments,
    together,
)

WHOLE_LOG = "refold.events"
"""Subject of damage that belongs to no segment, because the event's position is unknown."""
NAMED = 1_000
"""Most events of a portion that are named."""

Fault = Literal["changed", "unknown", "missing", "checksums", "gone"]


@dataclass(frozen=True, slots=True)
class Damage:
    """A fault in the log: it differs from what was written.

    Args:
        segment: the damaged segment.
        fault: an event was `changed`; is `unknown` to the ledger; is `missing`; the `checksums` of a sealed slice
            differ; the whole segment is `gone`.
        event_id: which event.
        position: where it stands, or stood, or its slice begins.
        detail: more about it.
    """

    segment: str
    fault: Fault
    event_id: str | None = None
    position: int | None = None
    detail: str = ""


@dataclass(slots=True)
class Look:
    """The result of the verification of some slices.

    Args:
        events: number of events of the log in the slices.
        sealed: number of events of the log in slices that are sealed.
        purged: number of purged events in the slices: of these only checksums are compared.
        damage: the first faults of each portion.
        slices: damaged slices.
    """

    events: int = 0
    sealed: int = 0
    purged: int = 0
    damage: list[Damage] = field(default_factory=list)
    slices: set[int] = field(default_factory=set)


class LogDamaged(BuildError):
    """The log differs from what was written, so results computed from it would be wrong."""

    def __init__(self, damage: Sequence[Damage], slices: Iterable[int]) -> None:
        first = damage[0]
        what = first.event_id or first.detail or f"position {first.position}"
        more = f" and {len(damage) - 1:,} more" if len(damage) > 1 else ""
        super().__init__(
            f"the log is damaged, so refold computes nothing from it: {first.segment}: {first.fault}: {what}{more}",
            remedy=REMEDY,
        )
        self.damage = list(damage)
        self.slices = set(slices)


REMEDY = (
    "`refold scrub` names the events. Restore them, with `refold archive restore SEGMENT` or from a backup, or accept"
    " the loss with `refold scrub accept SEGMENT --reason …`."
)


def edge(conn: psycopg.Connection) -> tuple[int, int]:
    """Return the first unsealed slice, and the last slice of which positions have been drawn."""
    row = one_row(
        conn,
        """
        SELECT coalesce(min(slice) FILTER (WHERE sealed_at IS NULL), max(slice) + 1, 0),
               (SELECT last_value FROM refold.events_position)
        FROM refold.sealed_slices
        """,
    )
    return int(row[0]), int(row[1]) >> POSITION_BITS


def floor(conn: psycopg.Connection) -> int:
    """Return the first position that was not purged."""
    return int(one_row(conn, "SELECT refold.log_floor()")[0])


def whole(conn: psycopg.Connection) -> list[Range]:
    """Return all slices in portions of bounded work, including positions outside of the drawn ones."""
    _, last = edge(conn)
    return [
        (None if low == 0 else low, None if low + TOGETHER > last else low + TOGETHER - 1)
        for low in range(0, last + 1, TOGETHER)
    ]


def portions(slices: Iterable[int]) -> Iterator[Range]:
    """Yield some slices in portions of bounded work."""
    for low, high in runs(slices):
        assert low is not None and high is not None
        for start in range(low, high + 1, TOGETHER):
            yield start, min(start + TOGETHER - 1, high)


def look(conn: psycopg.Connection, part: Range, *, ledger: bool = False) -> Look:
    """Compare the events in a range of slices with what was written there.

    In a transaction in READ COMMITTED an event that comes meanwhile does no harm: a slice that is sealed gets none, and
    of the others log and ledger are read by one statement.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        part: from one slice to another. (To bound the work is the caller's business.)
        ledger: look sealed slices up in the ledger even if their checksums are right.
    """
    unsealed, _ = edge(conn)
    found = Look()
    lower, upper = _positions(part)
    here, gone = checksums(conn, lower, upper), purged(conn, lower, upper)
    found.events = sum(one.events for one in here.values())
    found.purged = sum(one.events for one in gone.values())
    standing = together(here, gone)
    kept = sealed(conn, 0 if part[0] is None else part[0], LAST if part[1] is None else part[1])
    found.sealed = sum(one.events for one in kept.values()) - found.purged
    # Slices in which nobody ever wrote are not kept (see `refold.store.log.seal`).
    differ = sorted(
        number
        for number in kept.keys() | standing.keys()
        if (number in kept or number < unsealed)
        and standing.get(number, SliceChecksum()) != kept.get(number, SliceChecksum())
    )
    rows = [
        row
        for run in ([part] if ledger else [*_unsealed(part, unsealed), *runs(differ)])
        for row in _by_ledger(conn, run)
    ]
    if not rows and not differ:
        return found
    known, lowest = segments(conn), floor(conn)
    named = [
        Damage(_segment(known, lowest, int(position)), fault, str(event_id), int(position), detail)
        for fault, event_id, position, detail in rows
    ]
    found.damage += named
    found.slices |= {(one.position or 0) >> POSITION_BITS for one in named} | set(differ)
    by_slice = {(one.position or 0) >> POSITION_BITS: one.segment for one in reversed(named)}
    for number in differ:
        first = number << POSITION_BITS
        there, was = standing.get(number, SliceChecksum()).events, kept.get(number, SliceChecksum()).events
        what = f"{there:,} events where {was:,}" if there != was else "as many events as"
        others = "" if there != was else ", and not the same"
        found.damage.append(
            Damage(
                # A slice may end in the next segment, and begin in a purged one.
                by_slice.get(number) or _segment(known, lowest, max(first, lowest)),
                "checksums",
                position=first,
                detail=f"{by_position().name(number)}: {what} were sealed{others}",
            )
        )
    return found


def _unsealed(part: Range, unsealed: int) -> list[Range]:
    """Return the unsealed part of a range, and the part before the log's beginning."""
    low, high = part
    before: list[Range] = [(None, -1)] if low is None else []
    if high is not None and high < unsealed:
        return before
    return [*before, (unsealed if low is None else max(low, unsealed), high)]


def _positions(part: Range) -> tuple[int, int]:
    """Return the first position of a range of slices, and the first one behind it."""
    low, high = part
    return (
        -(2**63) if low is None else low << POSITION_BITS,
        2**63 - 1 if high is None else (high + 1) << POSITION_BITS,
    )


def _by_ledger(conn: psycopg.Connection, part: Range) -> list[tuple[Fault, str, int, str]]:
    """Return the events of a range of slices that differ from the ledger: fault, id, position and detail."""
    plan_freely(conn)
    lower, upper = _positions(part)
    return conn.execute(
        f"""
        SELECT CASE WHEN standing IS NULL THEN 'missing' WHEN known IS NULL OR times > 1 THEN 'unknown'
                    ELSE 'changed' END,
               coalesce(standing, known), coalesce(stands, was),
               CASE WHEN times > 1 THEN 'stands there twice' ELSE '' END
        FROM ({PAIRED}) AS k
        WHERE {DIFFERS}
        ORDER BY 3, 2 LIMIT {NAMED}
        """.encode(),
        {"lower": lower, "upper": upper},
    ).fetchall()


def _segment(known: Sequence[Segment], lowest: int, position: int) -> str:
    """Return the segment that has a position, or must have had it."""
    if position == 0:
        return WHOLE_LOG
    for segment in known:
        if segment.lower <= position < segment.upper:
            return segment.name
    return missing(max((one.upper for one in known if one.upper <= position), default=lowest))


def missing(lower: int) -> str:
    """Return the name of the segment that must have begun at a position."""
    return f"refold.events_{lower:015}"
