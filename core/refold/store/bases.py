"""How far events are folded into the bases of builds: `refold.bases`.

A row is locked by whoever folds, and changed by whoever makes an event a dead letter or releases it: then what was
folded of the present segment is folded again. The build's lock comes before the row's.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Folded:
    """A row of `refold.bases`.

    Args:
        folded: first position that is not in the base's tables.
        upto: end of the segment that is being folded.
        events: events of this segment that were read.
        ids: sum of the hashes of their positions.
        hash: sum of the hashes of these events.
        stale: whether one of them was folded that must not be, or was left out that must be folded.
    """

    build_id: int
    folded: int
    upto: int
    events: int
    ids: Decimal
    hash: Decimal
    stale: bool


_COLUMNS = "build_id, folded, upto, events, ids, hash, stale"


def find(conn: psycopg.Connection, build_id: int, *, lock: bool = False) -> Folded | None:
    """Return how far a build's base is; None if it has none.

    Args:
        conn: the caller's transaction.
        build_id: the build.
        lock: whether to lock the row, so that no dead letter changes meanwhile.
    """
    with conn.cursor(row_factory=class_row(Folded)) as cursor:
        query = f"SELECT {_COLUMNS} FROM refold.bases WHERE build_id = %s{' FOR UPDATE' if lock else ''}"
        return cursor.execute(query.encode(), (build_id,)).fetchone()


def every(conn: psycopg.Connection) -> dict[int, Folded]:
    """Return how far all bases are, by build."""
    with conn.cursor(row_factory=class_row(Folded)) as cursor:
        found = cursor.execute(f"SELECT {_COLUMNS} FROM refold.bases".encode()).fetchall()
    return {one.build_id: one for one in found}


def begin(conn: psycopg.Connection, build_id: int, floor: int) -> bool:
    """Record that a build has a base, which holds everything below its floor; return False if that is known."""
    done = conn.execute(
        "INSERT INTO refold.bases (build_id, folded, upto) VALUES (%s, %s, %s) ON CONFLICT (build_id) DO NOTHING",
        (build_id, floor, floor),
    )
    return done.rowcount > 0


def aim(conn: psycopg.Connection, build_id: int, floor: int, upto: int) -> None:
    """Record that a segment is folded from its begin on."""
    conn.execute(
        "UPDATE refold.bases SET folded = %s, upto = %s, events = 0, ids = 0, hash = 0, stale = false"
        " WHERE build_id = %s",
        (floor, upto, build_id),
    )


def loading(conn: psycopg.Connection, build_id: int, done: int, floor: int) -> None:
    """Record up to which position a build has loaded from the archive; at its floor, it has all that was purged."""
    conn.execute(
        "INSERT INTO refold.bases (build_id, folded, upto) VALUES (%s, %s, %s)"
        " ON CONFLICT (build_id) DO UPDATE SET folded = excluded.folded",
        (build_id, done, floor),
    )


def give_up(conn: psycopg.Connection, build_id: int, floor: int) -> bool:
    """Forget how far a build has loaded from the archive, unless it has reached its floor; return whether it did."""
    gone = conn.execute("DELETE FROM refold.bases WHERE build_id = %s AND folded < least(upto, %s)", (build_id, floor))
    return gone.rowcount > 0


def complete(conn: psycopg.Connection, build_id: int, floor: int) -> bool:
    """Return whether a build that is not loaded has all that was purged."""
    mark = find(conn, build_id)
    return mark is not None and mark.folded >= min(mark.upto, floor)


def moved(conn: psycopg.Connection, build_id: int, folded: int, events: int, ids: Decimal, hash_: Decimal) -> None:
    """Record that events were folded, in the transaction that has folded them."""
    conn.execute(
        "UPDATE refold.bases SET folded = %s, events = events + %s, ids = ids + %s, hash = hash + %s"
        " WHERE build_id = %s",
        (folded, events, ids, hash_, build_id),
    )


def doubt(conn: psycopg.Connection, build_id: int, lowest: int) -> None:
    """Record that what was folded of the present segment is not right any more, if it covers a position.

    Args:
        conn: the transaction that makes events dead letters or releases them; it holds the build's lock.
        build_id: the build.
        lowest: the lowest position of these events.
    """
    conn.execute(
        "UPDATE refold.bases SET stale = true WHERE build_id = %s AND folded > %s AND NOT stale", (build_id, lowest)
    )
