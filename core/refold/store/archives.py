"""The manifest of the archive, and whose the store is: `refold.archives`, `archive_slices` and `archive_store`.

The manifest is in the database that owns the cursors, so that what it says commits together with what is done to the
log. A file counts for nothing until it was read back: see `refold.engine.archive`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg.rows import class_row

from refold.model.stream.cursor import RESTORED
from refold.model.stream.slices import POSITION_BITS, multirange, runs, whole
from refold.postgres.rows import one_row
from refold.store.log.seal import Segment, SliceChecksum

State = Literal["begun", "written", "verified", "purged", "replaced", "gone"]
"""`begun`: the file has a name. `written`: the store has taken it. `verified`: its rows were read back and agree with
all sealed checksums. `purged`: so they do, and the segment has left the log, so that this file alone has its events.
`replaced`: the log was accepted with other events since, or another file was written. `gone`: the
store does not have what was written."""
LEASE_S = 120
"""Seconds after its last sign of life for which a writer of the archive keeps others out, if its session goes on."""
_HELD = "%s || ':' || pg_backend_pid()"
"""How a holder stands in the row: with its session as of the last sign of life."""
_GONE = """split_part(holder, ':', 2) <> ''
    AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid::text = split_part(holder, ':', 2))"""
"""Condition on the row: the holder's session has ended. (If another one has its number by now, the lease ends by time.
Whoever went on all the same, in another session of a pool, finds the lease lost before it writes.)"""


class LeaseLost(Exception):
    """Another process writes the archive: this one was silent for too long."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A row of the manifest: a file that holds a segment of the log, or shall hold it.

    Args:
        lower_position: first position of the segment.
        upper_position: first position behind it.
        generation: number of the file among those of the segment.
        state: see `State`.
        location: the file's name in the store.
        rewritten: whether the log has new transaction ids since, by a recovery.
        size: bytes of the file.
        sha256: of the file.
        events: number of its events.
        upto: the greatest transaction id under which its checksums were proved.
        proved_at: when its rows were read back and agreed.
        verified_at: when the checksums of slices that a border cuts agreed too, last.
        checked_at: when the file was last compared with its size and SHA-256.
        purged_at: when the segment left the log.
    """

    lower_position: int
    upper_position: int
    generation: int
    state: State
    location: str
    rewritten: bool
    size: int | None
    sha256: bytes | None
    events: int | None
    upto: int | None
    first_ts: datetime | None
    last_ts: datetime | None
    proved_at: datetime | None
    verified_at: datetime | None
    checked_at: datetime | None
    purged_at: datetime | None

    @property
    def segment(self) -> str:
        """Return the qualified name of the segment."""
        return f"refold.events_{self.lower_position:015}"

    @property
    def partition(self) -> Segment:
        """Return the segment, whether or not the log still has it."""
        return Segment(self.segment, self.lower_position, self.upper_position)

    @property
    def slices(self) -> tuple[int, int]:
        """Return the first and the last slice of the segment, which its borders may cut."""
        return self.lower_position >> POSITION_BITS, (self.upper_position - 1) >> POSITION_BITS

    def whole(self, number: int) -> bool:
        """Return whether all positions of a slice are in the segment."""
        return whole(number, self.lower_position, self.upper_position)


@dataclass(frozen=True, slots=True)
class Claim:
    """The row of `refold.archive_store`.

    Args:
        location: the store that was claimed.
        owner: names the claim.
        turns: what the store may hold as the newest turn.
        claimed_at: when it was claimed.
        claimed_by: login that claimed it.
        holder: who writes the archive.
        leased_until: until when, if the holder gives no sign of life.
        failures: attempts that failed in succession.
        failing_since: when the first of them failed.
        retry_at: the next attempt.
        error: what the store said last.
    """

    location: str
    owner: str
    turns: list[str]
    claimed_at: datetime
    claimed_by: str
    holder: str | None
    leased_until: datetime | None
    failures: int
    failing_since: datetime | None
    retry_at: datetime | None
    error: str | None


_ARCHIVE = (
    "a.lower_position, a.upper_position, a.generation, a.state, a.location, a.rewritten, a.bytes AS size, a.sha256,"
    " a.events, a.upto::text::bigint AS upto, a.first_ts, a.last_ts, a.proved_at, a.verified_at, a.checked_at,"
    " a.purged_at"
)
_CLAIM = (
    "location, owner, turns, claimed_at, claimed_by, holder, leased_until, failures, failing_since, retry_at, error"
)


def claim_of(conn: psycopg.Connection) -> Claim | None:
    """Return the claim of this database to a store; None if it has none."""
    with conn.cursor(row_factory=class_row(Claim)) as cursor:
        return cursor.execute(f"SELECT {_CLAIM} FROM refold.archive_store".encode()).fetchone()


def put_claim(conn: psycopg.Connection, location: str, owner: str, turn: str) -> None:
    """Record the claim of a store in place of an earlier one.

    Args:
        conn: acts as refold_owner; the caller's transaction.
        location: the store.
        owner: names the claim.
        turn: what the store will hold.
    """
    conn.execute("UPDATE refold.settings SET archive = %s", (location,))
    conn.execute("DELETE FROM refold.archive_store")
    conn.execute(
        "INSERT INTO refold.archive_store (location, owner, turns) VALUES (%s, %s, %s)", (location, owner, [turn])
    )


def disown(conn: psycopg.Connection) -> bool:
    """Let go of the store until a person claims it, because this database may be a copy; return whether it had one.

    Args:
        conn: acts as refold_worker; the caller's transaction.
    """
    return conn.execute("UPDATE refold.archive_store SET turns = '{}' WHERE turns <> '{}'").rowcount > 0


def turning(conn: psycopg.Connection, turn: str) -> None:
    """Record that the store may hold a new turn from now on."""
    conn.execute("UPDATE refold.archive_store SET turns = turns || %s::text", (turn,))


def turned(conn: psycopg.Connection, turn: str) -> None:
    """Record that the store holds a turn."""
    conn.execute("UPDATE refold.archive_store SET turns = ARRAY[%s::text]", (turn,))


def take(conn: psycopg.Connection, holder: str) -> Claim | None:
    """Take the lease of the archive, if no other process holds it; return the claim, or None.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        holder: names the lease; without a colon.
    """
    with conn.cursor(row_factory=class_row(Claim)) as cursor:
        return cursor.execute(
            f"UPDATE refold.archive_store SET holder = {_HELD},"
            f" leased_until = clock_timestamp() + make_interval(secs => {LEASE_S})"
            f" WHERE leased_until IS NULL OR leased_until < clock_timestamp() OR {_GONE} RETURNING {_CLAIM}".encode(),
            (holder,),
        ).fetchone()


def keep(conn: psycopg.Connection, holder: str) -> None:
    """Prolong the lease; in a transaction, keep others from taking it until the transaction ends.

    Raises:
        LeaseLost: another process has it.
    """
    kept = conn.execute(
        f"UPDATE refold.archive_store SET holder = {_HELD},"
        f" leased_until = clock_timestamp() + make_interval(secs => {LEASE_S})"
        " WHERE split_part(holder, ':', 1) = %s".encode(),
        (holder, holder),
    )
    if not kept.rowcount:
        raise LeaseLost("another process writes the archive")


def let_go(conn: psycopg.Connection, holder: str) -> None:
    """Give the lease back, if it is still held."""
    conn.execute(
        "UPDATE refold.archive_store SET holder = NULL, leased_until = NULL WHERE split_part(holder, ':', 1) = %s",
        (holder,),
    )


def failed(conn: psycopg.Connection, error: str, *, least_s: float, most_s: float) -> Claim | None:
    """Record that an attempt failed; the next one waits, twice as long as the last.

    Args:
        conn: acts as refold_worker.
        error: what the store said.
        least_s: the first pause, seconds.
        most_s: the longest, seconds.
    """
    with conn.cursor(row_factory=class_row(Claim)) as cursor:
        return cursor.execute(
            f"""
            UPDATE refold.archive_store
            SET failures = failures + 1, failing_since = coalesce(failing_since, clock_timestamp()), error = %s,
                retry_at = clock_timestamp() + make_interval(secs => least(%s * power(2, least(failures, 20)), %s))
            RETURNING {_CLAIM}
            """.encode(),
            (error, least_s, most_s),
        ).fetchone()


def worked(conn: psycopg.Connection) -> None:
    """Record that an attempt succeeded."""
    conn.execute(
        "UPDATE refold.archive_store SET failures = 0, failing_since = NULL, retry_at = NULL, error = NULL"
        " WHERE failures > 0"
    )


_CURRENT = "('begun', 'written', 'verified')"
_DOUBTED = (
    "state = CASE state WHEN 'verified' THEN 'written' ELSE state END,"
    " proved_at = NULL, events = NULL, upto = NULL, ids = NULL, hash = NULL"
)
_DUE = f"""
    SELECT format('refold.%%I', c.relname), g.lower_position, g.upper_position
    FROM refold.segments AS g
    JOIN pg_class AS c ON c.oid = g.segment
    CROSS JOIN (SELECT max(slice) AS last FROM refold.sealed_slices) AS known
    WHERE (g.upper_position - 1) >> {POSITION_BITS} <= known.last
      AND NOT EXISTS (
          SELECT FROM refold.sealed_slices AS s
          WHERE s.slice >= (g.lower_position >> {POSITION_BITS})::integer
            AND s.slice <= ((g.upper_position - 1) >> {POSITION_BITS})::integer
            AND (s.sealed_at IS NULL OR s.sealed_at > clock_timestamp() - make_interval(secs => %s))
      )
"""
"""The segments that were sealed so many seconds ago. A slice that is not recorded between sealed ones is empty."""


def due(conn: psycopg.Connection, older_than_s: float, at_most: int | None = None) -> list[Segment]:
    """Return the sealed segments without a file, oldest first.

    Args:
        conn: acts as refold_worker.
        older_than_s: only those that were sealed so long ago, seconds.
        at_most: so many.
    """
    rows = conn.execute(
        f"{_DUE} AND NOT EXISTS (SELECT FROM refold.archives AS a WHERE a.lower_position = g.lower_position"
        f" AND a.state IN {_CURRENT}) ORDER BY g.lower_position LIMIT %s".encode(),
        (older_than_s, at_most),
    ).fetchall()
    return [Segment(*row) for row in rows]


def unproved(conn: psycopg.Connection) -> list[Archive]:
    """Return the files that are begun, or written and not read back, of sealed segments: what was interrupted."""
    return find(
        conn,
        "a.state IN ('begun', 'written') AND a.proved_at IS NULL"
        f" AND a.lower_position IN (SELECT d.lower_position FROM ({_DUE}) AS d)",
        0,
    )


def find(conn: psycopg.Connection, condition: str = "true", *parameters: object) -> list[Archive]:
    """Return the files that satisfy an SQL condition over `a` (a row of refold.archives), by segment."""
    with conn.cursor(row_factory=class_row(Archive)) as cursor:
        query = f"SELECT {_ARCHIVE} FROM refold.archives AS a WHERE {condition} ORDER BY lower_position, generation"
        return cursor.execute(query.encode(), parameters).fetchall()


def proved_ones(conn: psycopg.Connection) -> list[Archive]:
    """Return the files whose rows were read back and agreed."""
    return find(conn, "a.state IN ('written', 'verified', 'purged') AND a.proved_at IS NOT NULL")


def begin(conn: psycopg.Connection, segment: Segment, location: str) -> Archive:
    """Give the next file of a segment its name.

    Args:
        conn: acts as refold_worker; the caller's transaction, which holds the lease.
        segment: the segment.
        location: the file's name, with `{}` where the number of its generation goes.
    """
    return one_row(
        conn,
        f"""
        INSERT INTO refold.archives AS a (lower_position, upper_position, generation, state, location)
        SELECT %(lower)s, %(upper)s, g.next, 'begun', replace(%(location)s, '{{}}', g.next::text)
        FROM (SELECT coalesce(max(generation), 0) + 1 AS next FROM refold.archives
              WHERE lower_position = %(lower)s) AS g
        RETURNING {_ARCHIVE}
        """.encode(),
        {"lower": segment.lower, "upper": segment.upper, "location": location},
        row=class_row(Archive),
    )


def written(conn: psycopg.Connection, archive: Archive, size: int, sha256: bytes) -> None:
    """Record what the store has taken."""
    _change(
        conn, archive,
        "state = 'written', bytes = %s, sha256 = %s, written_at = coalesce(written_at, clock_timestamp())",
        size, sha256,
    )  # fmt: skip


def proved(
    conn: psycopg.Connection,
    archive: Archive,
    slices: Mapping[int, SliceChecksum],
    first_ts: datetime | None,
    last_ts: datetime | None,
) -> None:
    """Record the checksums of the rows that were read back; `complete` does the rest.

    Args:
        conn: acts as refold_worker; the caller's transaction, in which they were compared and the lease is held.
        archive: the file.
        slices: its checksums by slice.
        first_ts: time of its first event.
        last_ts: time of its last event.
    """
    total = sum(slices.values(), SliceChecksum())
    _change(
        conn, archive,
        "events = %s, upto = %s::text::xid8, ids = %s, hash = %s, first_ts = %s, last_ts = %s,"
        " proved_at = clock_timestamp(), checked_at = clock_timestamp()",
        total.events, str(total.upto), total.ids, total.hash, first_ts, last_ts,
    )  # fmt: skip
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO refold.archive_slices (lower_position, generation, slice, events, upto, ids, hash)"
            " VALUES (%s, %s, %s, %s, %s::text::xid8, %s, %s)",
            [
                (archive.lower_position, archive.generation, number, one.events, str(one.upto), one.ids, one.hash)
                for number, one in slices.items()
            ],
        )


def complete(conn: psycopg.Connection) -> list[Archive]:
    """Mark and return the files whose slices agree with the sealed checksums, also those that borders cut.

    The parts of a slice that is cut are in the files of two segments. Before both are there, neither is verified.

    Args:
        conn: acts as refold_worker; the caller's transaction, which holds the lease.
    """
    with conn.cursor(row_factory=class_row(Archive)) as cursor:
        return cursor.execute(
            f"""
            UPDATE refold.archives AS a SET state = 'verified', verified_at = clock_timestamp()
            WHERE a.state = 'written' AND a.proved_at IS NOT NULL AND NOT EXISTS (
                SELECT
                FROM (VALUES ((a.lower_position >> {POSITION_BITS})::integer),
                             (((a.upper_position - 1) >> {POSITION_BITS})::integer)) AS border (slice)
                LEFT JOIN refold.sealed_slices AS s USING (slice)
                CROSS JOIN LATERAL (
                    SELECT coalesce(sum(p.events), 0), coalesce(sum(p.ids), 0), coalesce(sum(p.hash), 0)
                    FROM refold.archive_slices AS p JOIN refold.archives AS o USING (lower_position, generation)
                    WHERE p.slice = border.slice AND o.state IN ('written', 'verified', 'purged')
                ) AS parts (events, ids, hash)
                WHERE (coalesce(s.events, 0), coalesce(s.ids, 0), coalesce(s.hash, 0))
                      <> (parts.events, parts.ids, parts.hash)
            )
            RETURNING {_ARCHIVE}
            """.encode()
        ).fetchall()


def slices_of(conn: psycopg.Connection, archive: Archive) -> dict[int, SliceChecksum]:
    """Return the checksums that a file was proved to have, by slice."""
    rows = conn.execute(
        "SELECT slice, events, upto::text::bigint, ids, hash FROM refold.archive_slices"
        " WHERE lower_position = %s AND generation = %s",
        (archive.lower_position, archive.generation),
    ).fetchall()
    return {
        int(number): SliceChecksum(int(events), int(upto), int(ids), int(total))
        for number, events, upto, ids, total in rows
    }


def restate(conn: psycopg.Connection, archive: Archive, slices: Mapping[int, SliceChecksum]) -> None:
    """Replace the checksums of a file, whose bytes are those that were proved, by those of other hash functions.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        archive: the file of a purged segment.
        slices: its checksums by slice.
    """
    total = sum(slices.values(), SliceChecksum())
    of = {"lower": archive.lower_position, "generation": archive.generation}
    conn.execute(
        "UPDATE refold.archives SET ids = %(ids)s, hash = %(hash)s"
        " WHERE lower_position = %(lower)s AND generation = %(generation)s",
        of | {"ids": total.ids, "hash": total.hash},
    )
    with conn.cursor() as cursor:
        cursor.executemany(
            "UPDATE refold.archive_slices SET ids = %(ids)s, hash = %(hash)s"
            " WHERE lower_position = %(lower)s AND generation = %(generation)s AND slice = %(slice)s",
            [of | {"ids": one.ids, "hash": one.hash, "slice": number} for number, one in slices.items()],
        )


def checked(conn: psycopg.Connection, archive: Archive) -> None:
    """Record that a file is as it was written."""
    conn.execute(
        "UPDATE refold.archives SET checked_at = clock_timestamp() WHERE lower_position = %s AND generation = %s",
        (archive.lower_position, archive.generation),
    )


def gone(conn: psycopg.Connection, archive: Archive) -> None:
    """Record that the store does not have what was written, so that the file counts for nothing."""
    _end(conn, archive, "gone")


def replaced(conn: psycopg.Connection, archive: Archive) -> None:
    """Record that another file of the segment shall count."""
    _end(conn, archive, "replaced")


def withdrawn(conn: psycopg.Connection, archive: Archive) -> None:
    """Record that a file that did not count any more was removed."""
    conn.execute(
        "UPDATE refold.archives SET state = 'gone'"
        " WHERE lower_position = %s AND generation = %s AND state = 'replaced'",
        (archive.lower_position, archive.generation),
    )


def forget(conn: psycopg.Connection, archive: Archive) -> None:
    """Delete the row of a file that was never written."""
    conn.execute(
        "DELETE FROM refold.archives WHERE lower_position = %s AND generation = %s AND state = 'begun'",
        (archive.lower_position, archive.generation),
    )


def outdate(conn: psycopg.Connection, slices: Iterable[int]) -> None:
    """Record that the log has other events in some slices from now on: files with the former ones are replaced.

    Args:
        conn: acts as refold_worker or refold_owner; the transaction that changes the sealed checksums.
        slices: the slices.
    """
    conn.execute(
        f"""
        UPDATE refold.archives AS a SET state = 'replaced'
        WHERE a.state IN {_CURRENT}
          AND int4range((a.lower_position >> {POSITION_BITS})::integer,
                        ((a.upper_position - 1) >> {POSITION_BITS})::integer, '[]') && ANY (
              SELECT r FROM unnest(%s::int4multirange) AS r)
        """.encode(),
        (multirange(runs(slices)),),
    )


def doubt(conn: psycopg.Connection, archive: Archive) -> None:
    """Record that a file has to be read back once more."""
    conn.execute(
        "DELETE FROM refold.archive_slices WHERE lower_position = %s AND generation = %s",
        (archive.lower_position, archive.generation),
    )
    conn.execute(
        f"UPDATE refold.archives SET {_DOUBTED} WHERE lower_position = %s AND generation = %s".encode(),
        (archive.lower_position, archive.generation),
    )


def unprove(conn: psycopg.Connection, *, rewritten: bool) -> None:
    """Record that the sealed checksums are computed again: each file has to be compared with them once more.

    Args:
        conn: acts as refold_worker or refold_owner; the transaction that deletes the sealed checksums.
        rewritten: whether the events of the log get new transaction ids.
    """
    # Of purged events nothing else tells the checksums.
    conn.execute(
        "DELETE FROM refold.archive_slices AS p USING refold.archives AS a"
        " WHERE (a.lower_position, a.generation) = (p.lower_position, p.generation) AND a.state <> 'purged'"
    )
    if rewritten:
        conn.execute("UPDATE refold.archives SET rewritten = true")
    conn.execute(f"UPDATE refold.archives SET {_DOUBTED} WHERE state IN {_CURRENT}".encode())


def _end(conn: psycopg.Connection, archive: Archive, state: State) -> None:
    conn.execute(
        f"UPDATE refold.archives SET state = %s WHERE lower_position = %s AND generation = %s"
        f" AND state IN {_CURRENT}".encode(),
        (state, archive.lower_position, archive.generation),
    )


def _change(conn: psycopg.Connection, archive: Archive, change: str, *parameters: object) -> None:
    """Change the row of a file that still counts.

    Raises:
        LeaseLost: it does not: a person has accepted other events in its segment, or another process took over.
    """
    changed = conn.execute(
        f"UPDATE refold.archives SET {change} WHERE lower_position = %s AND generation = %s"
        f" AND state IN {_CURRENT}".encode(),
        (*parameters, archive.lower_position, archive.generation),
    )
    if not changed.rowcount:
        raise LeaseLost(f"{archive.location} does not count any more")


def purged(conn: psycopg.Connection, archive: Archive) -> None:
    """Record that the segment of a verified file leaves the log, in the transaction in which it does."""
    conn.execute(
        "UPDATE refold.archives SET state = 'purged', purged_at = clock_timestamp()"
        " WHERE lower_position = %s AND generation = %s AND state = 'verified'",
        (archive.lower_position, archive.generation),
    )


def adopt(conn: psycopg.Connection, lower: int, upper: int, generation: int, location: str) -> None:
    """Enter a file that the store was found to have; it counts once it was read back.

    Args:
        conn: acts as refold_worker; the caller's transaction.
        lower: first position of its segment, which has no file that counts.
        upper: first position behind it.
        generation: its number, if no other file has that.
        location: its name.
    """
    conn.execute(
        """
        INSERT INTO refold.archives (lower_position, upper_position, generation, state, location)
        SELECT %(lower)s, %(upper)s, greatest(%(generation)s, coalesce(max(generation), 0) + 1), 'begun', %(location)s
        FROM refold.archives WHERE lower_position = %(lower)s
        """,
        {"lower": lower, "upper": upper, "generation": generation, "location": location},
    )


def succeed(
    conn: psycopg.Connection,
    former: Archive,
    successor: Archive,
    size: int,
    sha256: bytes,
    slices: Mapping[int, SliceChecksum],
    first_ts: datetime | None,
    last_ts: datetime | None,
    *,
    ended: Literal["replaced", "gone"] = "replaced",
) -> None:
    """Let a file that was begun count as that of a purged segment, whose events it has otherwise; its rows are proved.

    Args:
        conn: acts as refold_worker; the caller's transaction, which holds the lease.
        former: the file that counts so far.
        successor: the other.
        size: its bytes.
        sha256: of all of them.
        slices: checksums of its rows, by slice.
        first_ts: time of its first event.
        last_ts: time of its last event.
        ended: what becomes of the former file.

    Raises:
        LeaseLost: the former file does not count any more, or nobody knows of the other.
    """
    counted = conn.execute(
        "UPDATE refold.archives SET state = %s, purged_at = NULL"
        " WHERE lower_position = %s AND generation = %s AND state = 'purged'",
        (ended, former.lower_position, former.generation),
    )
    if not counted.rowcount:
        raise LeaseLost(f"{former.location} does not count any more")
    written(conn, successor, size, sha256)
    proved(conn, successor, slices, first_ts, last_ts)
    _change(
        conn, successor,
        "state = 'purged', verified_at = clock_timestamp(), purged_at = %s, rewritten = %s",
        former.purged_at, former.rewritten,
    )  # fmt: skip
    if former.rewritten:
        # Its checksums may be those of the file's own ids, but its events count under the one that all got.
        conn.execute(
            "UPDATE refold.archive_slices SET upto = %s::text::xid8 WHERE lower_position = %s AND generation = %s",
            (str(RESTORED), successor.lower_position, successor.generation),
        )
