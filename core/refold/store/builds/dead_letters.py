"""Dead letters: events that one build could not process, stored with the error and excluded from its page.

A waiting or dropped letter is *known missing*: the build's law is about its events less these. `Build.dead_letters`
counts both, in the row whose lock everybody holds who reads or changes them; the usual build has none, and nobody asks
for their ids.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

import psycopg
from psycopg.rows import class_row

from refold.errors import BuildError
from refold.model.stream.cursor import Key
from refold.postgres.rows import one_row
from refold.store import bases, incidents
from refold.store.builds.build import Build
from refold.store.log.append import storable

if TYPE_CHECKING:
    from pydantic import ValidationError

State = Literal["waiting", "released", "dropped"]
INCIDENT: incidents.Kind = "dead_letters"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row of `refold.dead_letters`, with its projection.

    Args:
        build_state: state of its build; only of a live one the metric misses the event.
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
    build_state: str
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
    """Return the dead letters that satisfy an SQL condition over `d` (refold.dead_letters) and `b` (its build)."""
    with conn.cursor(row_factory=class_row(DeadLetter)) as cursor:
        query = f"""
            SELECT d.dead_letter_id, d.build_id, b.projection, b.table_name, b.state AS build_state, d.event_id,
                   d.txid::text::bigint AS txid, d.position, d.ordinal, d.state, d.attempts, d.sqlstate, d.error,
                   d.traceback, d.first_failed_at, d.last_failed_at, d.ended_at, d.ended_by, d.reason
            FROM refold.dead_letters AS d JOIN refold.builds AS b USING (build_id)
            WHERE {condition} ORDER BY d.dead_letter_id
        """
        return cursor.execute(query.encode(), parameters).fetchall()


def letters(
    conn: psycopg.Connection,
    *,
    waiting: bool = False,
    numbers: Sequence[int] | None = None,
    projections: Sequence[str] | None = None,
) -> list[DeadLetter]:
    """Dead letters, oldest first.

    Args:
        conn: acts as one of `INSPECTORS`.
        waiting: only those that wait, of builds that are kept.
        numbers: only those of these numbers, or
        projections: of these projections; all where both are None.
    """
    condition = "d.state = 'waiting' AND b.state IN ('building', 'live')" if waiting else "true"
    if numbers is None and projections is None:
        return find(conn, condition)
    return find(
        conn,
        f"{condition} AND (d.dead_letter_id = ANY (%s) OR b.projection = ANY (%s))",
        list(numbers or ()),
        list(projections or ()),
    )


def excluded_event_ids(conn: psycopg.Connection, build: Build) -> list[str]:
    """Return the ids of the events that a build excludes.

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
class DeadLetterBudget:
    """The number of dead letters of a build that may wait; more suggest that the projection is broken.

    What a person has dropped is settled, and does not count. A *live* build goes on beyond the bound unless
    `refold.settings.too_many_dead_letters` says `stop`: whoever can append could otherwise stop a metric, and good
    events would be kept waiting behind bad ones. A build that is not live yet stops, for nobody reads it, and its
    predecessor is there.

    Args:
        left: how many more of the build may wait.
        of_page: how many of this page may; a few always may.
        stops: whether more of them are an error.
    """

    left: int
    of_page: int
    stops: bool = True

    FEW = 10

    @classmethod
    def for_page(cls, conn: psycopg.Connection, build: Build, rows: int) -> DeadLetterBudget:
        """Read the budget for a page of a number of rows from `refold.settings`."""
        # What its live predecessor leaves out fails in a rebuild as well, and is no news.
        found = one_row(
            conn,
            """
            SELECT s.max_dead_letters, s.dead_letter_share, s.too_many_dead_letters, b.waiting_letters, b.state,
                   coalesce((SELECT p.dead_letters FROM refold.builds AS p
                             WHERE p.projection = b.projection AND p.state = 'live' AND p.build_id <> b.build_id), 0)
            FROM refold.settings AS s, refold.builds AS b WHERE b.build_id = %s
            """,
            (build.build_id,),
        )
        most, share, beyond, waiting, state, known = found
        few = max(cls.FEW, int(rows * share), known)
        return cls(most + known - waiting, few, beyond == "stop" or state != "live")

    @property
    def beyond(self) -> bool:
        """Return whether the budget is exceeded."""
        return self.left < 0 or self.of_page < 0

    def spend(self, error: BaseException) -> None:
        """Count one more dead letter.

        Raises:
            BuildError: the budget is exceeded, and the build stops.
        """
        self.left -= 1
        self.of_page -= 1
        if self.beyond and self.stops:
            raise BuildError(
                f"too many events fail; the last error is {described(error)}",
                remedy="Correct the projection and deploy it. The limits are refold.settings.max_dead_letters and "
                "dead_letter_share.",
            ) from error


class Failed(Protocol):
    """An event that failed, and the exception it raised."""

    @property
    def event_id(self) -> str: ...
    @property
    def key(self) -> Key: ...
    @property
    def error(self) -> Exception: ...


LONGEST = 300
"""Most characters of an error that are stored; Postgres quotes values that may have a megabyte."""


def described(error: BaseException) -> str:
    """Return the text of an error's cause in one line."""
    if isinstance(error, psycopg.Error):
        text = error.diag.message_primary or str(error).partition("\n")[0]
    else:
        # Transforms have loaded it; commands that only list dead letters need not.
        from pydantic import ValidationError

        cause = error.__cause__ or error
        said = _wrong_fields(cause) if isinstance(cause, ValidationError) else str(cause).partition("\n")[0]
        text = f"{type(cause).__name__}: {said}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def _wrong_fields(error: ValidationError) -> str:
    """Return each wrong field of a model with pydantic's message, in one line."""
    told = (
        f"{'.'.join(map(str, detail['loc'])) or error.title}: {' '.join(detail['msg'].split())}"
        for detail in error.errors(include_url=False, include_input=False, include_context=False)
    )
    return "; ".join(dict.fromkeys(told))


def quarantine(conn: psycopg.Connection, build: Build, failed: Sequence[Failed], *, beyond: bool = False) -> None:
    """Store events as dead letters of a build, in the transaction that moves the cursor past them.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        build: the build.
        failed: rows of its stream, each once.
        beyond: whether the budget is exceeded.
    """
    if not failed:
        return
    causes = [one.error.__cause__ for one in failed]
    traces = [None if cause is None else storable("".join(traceback.format_exception(cause))) for cause in causes]
    row = one_row(
        conn,
        """
        WITH failed AS (
            SELECT *
            FROM unnest(%(ids)s::text[], %(txids)s::text[], %(positions)s::bigint[], %(ordinals)s::integer[],
                        %(states)s::text[], %(errors)s::text[], %(traces)s::text[])
                 WITH ORDINALITY AS f (event_id, txid, position, ordinal, sqlstate, error, traceback, at)
        ),
        known AS (
            SELECT f.event_id, d.state FROM failed AS f JOIN refold.dead_letters AS d
                ON d.build_id = %(build)s AND d.event_id = f.event_id
        ),
        kept AS (
            INSERT INTO refold.dead_letters AS d
                (build_id, event_id, txid, position, ordinal, sqlstate, error, traceback)
            SELECT %(build)s, event_id, txid::xid8, position, ordinal, sqlstate, error, traceback
            FROM failed ORDER BY at
            ON CONFLICT (build_id, event_id) DO UPDATE SET
                attempts = d.attempts + 1, last_failed_at = now(), sqlstate = excluded.sqlstate,
                error = excluded.error, traceback = excluded.traceback,
                state = CASE d.state WHEN 'released' THEN 'waiting' ELSE d.state END,
                ended_at = CASE d.state WHEN 'released' THEN NULL ELSE d.ended_at END,
                ended_by = CASE d.state WHEN 'released' THEN NULL ELSE d.ended_by END
        )
        SELECT count(*) FROM failed AS f
        WHERE NOT EXISTS (SELECT FROM known AS k WHERE k.event_id = f.event_id AND k.state <> 'released')
        """,
        {
            "build": build.build_id,
            "ids": [one.event_id for one in failed],
            "txids": [str(one.key.txid) for one in failed],
            "positions": [one.key.position for one in failed],
            "ordinals": [one.key.ordinal for one in failed],
            "states": [one.error.sqlstate if isinstance(one.error, psycopg.Error) else None for one in failed],
            "errors": [storable(described(one.error)) for one in failed],
            "traces": traces,
        },
    )
    bases.doubt(conn, build.build_id, min(one.key.position for one in failed))
    moved(conn, build.build_id, left_out=row[0], waiting=row[0], beyond=beyond)


def moved(
    conn: psycopg.Connection, build_id: int, *, left_out: int = 0, waiting: int = 0, beyond: bool = False
) -> None:
    """Update a build's counts of dead letters, and its incident, which is open while any waits.

    Counting all of them each time would make a thousand letters cost a million rows.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        build_id: the build.
        left_out: change of the number of excluded events.
        waiting: change of the number of waiting ones.
        beyond: whether the budget is exceeded.
    """
    row = one_row(
        conn,
        """
        UPDATE refold.builds SET dead_letters = dead_letters + %s, waiting_letters = waiting_letters + %s
        WHERE build_id = %s RETURNING projection, table_name, waiting_letters
        """,
        (left_out, waiting, build_id),
    )
    projection, table, waits = row
    if not waits:
        incidents.resolve(conn, INCIDENT, table, by="deadletters", outcome={"waiting": 0})
        return
    # Both are the ends of an index.
    found = one_row(
        conn,
        """
        SELECT (SELECT first_failed_at FROM refold.dead_letters WHERE build_id = %(build)s AND state = 'waiting'
                ORDER BY first_failed_at LIMIT 1),
               (SELECT error FROM refold.dead_letters WHERE build_id = %(build)s AND state = 'waiting'
                ORDER BY first_failed_at DESC LIMIT 1)
        """,
        {"build": build_id},
    )
    since, error = found
    evidence = {"projection": projection, "waiting": waits, "error": error}
    if beyond:
        evidence["too_many"] = (
            "more events fail than refold.settings allows: the projection may be broken, not the events"
        )
    incidents.detect(conn, INCIDENT, table, by="worker", evidence=evidence, started_at=since)


def copy_letters(conn: psycopg.Connection, build: Build, other: str) -> None:
    """Give a build the dead letters of another for events that were purged from the log: its base lacks them too.

    Args:
        conn: the caller's transaction, which holds the build's lock and keeps the other from changing.
        build: the build, which starts from the base of the other.
        other: the other's table.
    """
    columns = (
        "event_id, txid, position, ordinal, state, attempts, sqlstate, error, traceback, first_failed_at,"
        " last_failed_at, ended_at, ended_by, reason, event"
    )
    copied = conn.execute(
        f"""
        INSERT INTO refold.dead_letters (build_id, {columns})
        SELECT %s, {columns} FROM refold.dead_letters
        WHERE build_id = (SELECT o.build_id FROM refold.builds AS o WHERE o.table_name = %s)
          AND state <> 'released' AND position < %s
        ON CONFLICT (build_id, event_id) DO NOTHING
        """.encode(),
        (build.build_id, other, build.floor),
    )
    if copied.rowcount:
        recount(conn, build.build_id)


def settle(conn: psycopg.Connection, build: Build) -> None:
    """Resolve the incident of a superseded build, whose dead letters are no longer listed.

    Args:
        conn: the transaction that retires it.
        build: the build.
    """
    because = {"because": "it is no longer kept up to date"}
    incidents.resolve(conn, INCIDENT, build.table_name, by="promote", outcome=because)


def recount(conn: psycopg.Connection, build_id: int) -> None:
    """Count a build's dead letters again, after some were deleted.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        build_id: the build.
    """
    conn.execute(
        """
        UPDATE refold.builds SET (dead_letters, waiting_letters) = (
            SELECT count(*) FILTER (WHERE state <> 'released'), count(*) FILTER (WHERE state = 'waiting')
            FROM refold.dead_letters WHERE build_id = %(build)s)
        WHERE build_id = %(build)s
        """,
        {"build": build_id},
    )
    moved(conn, build_id)
