"""Dead letters: events that one build could not process, set aside with the error so that its page could go on.

A waiting or dropped letter is *known missing*: the build's law is about its events less these. `Build.dead_letters`
counts them, in the row whose lock everybody holds who reads or changes them; the usual build has none, and nobody asks
for their ids.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg.rows import class_row

from refold import incidents
from refold.builds.build import Build
from refold.cursor import Key
from refold.errors import BuildError
from refold.log.append import storable

State = Literal["waiting", "released", "dropped"]
INCIDENT: incidents.Kind = "dead_letters"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row of `refold.dead_letters`, with its projection.

    Args:
        event_id: of the row in the build's stream.
        key: its coordinates there; a row of the log has the ordinal 0.
        attempts: how often it failed.
        sqlstate: the code, where Postgres refused it.
        error: what was said.
        traceback: where in the function it was said, for a transform.
        ended_at: when it was released or dropped.
        ended_by: the login that did.
        reason: why it was dropped.
    """

    dead_letter_id: int
    build_id: int
    projection: str
    table_name: str
    event_id: str
    txid: int
    position: int
    ordinal: int
    state: State
    attempts: int
    sqlstate: str | None
    error: str
    traceback: str | None
    first_failed_at: datetime
    last_failed_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    reason: str | None

    @property
    def key(self) -> Key:
        return Key(self.txid, self.position, self.ordinal)


def find(conn: psycopg.Connection, condition: str = "true", *parameters: object) -> list[DeadLetter]:
    """Letters that satisfy an SQL condition over `d` (refold.dead_letters) and `b` (its build), oldest first."""
    with conn.cursor(row_factory=class_row(DeadLetter)) as cursor:
        query = f"""
            SELECT d.dead_letter_id, d.build_id, b.projection, b.table_name, d.event_id, d.txid::text::bigint AS txid,
                   d.position, d.ordinal, d.state, d.attempts, d.sqlstate, d.error, d.traceback, d.first_failed_at,
                   d.last_failed_at, d.ended_at, d.ended_by, d.reason
            FROM refold.dead_letters AS d JOIN refold.builds AS b USING (build_id)
            WHERE {condition} ORDER BY d.dead_letter_id
        """
        return cursor.execute(query.encode(), parameters).fetchall()


def left_out(conn: psycopg.Connection, build: Build) -> list[str]:
    """The ids of the events that a build leaves out.

    Args:
        conn: the caller's snapshot, or a transaction that holds the build's lock.
        build: the build, as that snapshot or lock shows it.
    """
    if not build.dead_letters:
        return []
    rows = conn.execute(
        "SELECT event_id FROM refold.dead_letters WHERE build_id = %s AND state <> 'released'", (build.build_id,)
    ).fetchall()
    return [str(event_id) for (event_id,) in rows]


@dataclass(slots=True)
class Bound:
    """How many letters a build may have; beyond that it is the projection that is broken.

    Args:
        left: how many more the build may have.
        of_page: how many of this page may be; a few always may.
    """

    left: int
    of_page: int

    FEW = 10

    @classmethod
    def of(cls, conn: psycopg.Connection, build: Build, rows: int) -> Bound:
        """The bound for a page of so many rows, from `refold.settings`."""
        found = conn.execute("SELECT max_dead_letters, dead_letter_share FROM refold.settings").fetchone()
        assert found is not None
        return cls(int(found[0]) - build.dead_letters, max(cls.FEW, int(rows * found[1])))

    def take(self, error: BaseException) -> None:
        """Counts one more.

        Raises:
            BuildError: that is too many.
        """
        self.left -= 1
        self.of_page -= 1
        if self.left < 0 or self.of_page < 0:
            raise BuildError(
                f"too many of its events fail, the last with {described(error)}",
                remedy="Mend the projection and deploy it. The bounds are refold.settings.max_dead_letters and "
                "dead_letter_share.",
            ) from error


def described(error: BaseException) -> str:
    """An error in one line, as its cause has it."""
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or str(error).partition("\n")[0]
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"


def set_aside(conn: psycopg.Connection, build: Build, event_id: str, key: Key, error: BaseException) -> None:
    """Makes an event a dead letter of a build, in the transaction that moves the cursor past it.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        build: the build.
        event_id: of the row in the build's stream.
        key: its coordinates.
        error: what it made.
    """
    cause = error.__cause__
    trace = None if cause is None else "".join(traceback.format_exception(cause))
    conn.execute(
        """
        INSERT INTO refold.dead_letters AS d
            (build_id, event_id, txid, position, ordinal, sqlstate, error, traceback)
        VALUES (%s, %s, %s::text::xid8, %s, %s, %s, %s, %s)
        ON CONFLICT (build_id, event_id) DO UPDATE SET
            attempts = d.attempts + 1, last_failed_at = now(), sqlstate = excluded.sqlstate, error = excluded.error,
            traceback = excluded.traceback,
            state = CASE d.state WHEN 'released' THEN 'waiting' ELSE d.state END,
            ended_at = CASE d.state WHEN 'released' THEN NULL ELSE d.ended_at END,
            ended_by = CASE d.state WHEN 'released' THEN NULL ELSE d.ended_by END
        """,
        (
            build.build_id,
            event_id,
            str(key.txid),
            key.position,
            key.ordinal,
            error.sqlstate if isinstance(error, psycopg.Error) else None,
            storable(described(error)),
            None if trace is None else storable(trace),
        ),
    )
    count(conn, build.build_id)


def count(conn: psycopg.Connection, build_id: int) -> None:
    """Brings a build's count up to date, and its incident: open while letters wait.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        build_id: the build.
    """
    row = conn.execute(
        """
        UPDATE refold.builds AS b SET dead_letters = d.left_out
        FROM (
            SELECT count(*) FILTER (WHERE state <> 'released') AS left_out,
                   count(*) FILTER (WHERE state = 'waiting') AS waiting,
                   min(first_failed_at) FILTER (WHERE state = 'waiting') AS since,
                   (array_agg(error ORDER BY last_failed_at DESC) FILTER (WHERE state = 'waiting'))[1] AS error
            FROM refold.dead_letters WHERE build_id = %s
        ) AS d
        WHERE b.build_id = %s
        RETURNING b.projection, b.table_name, d.waiting, d.since, d.error
        """,
        (build_id, build_id),
    ).fetchone()
    assert row is not None
    projection, table, waiting, since, error = row
    if waiting:
        evidence = {"projection": projection, "waiting": waiting, "error": error}
        incidents.detect(conn, INCIDENT, table, by="worker", evidence=evidence, started_at=since)
    else:
        incidents.resolve(conn, INCIDENT, table, by="deadletters", outcome={"waiting": 0})
