"""Backfills from files: their rows in `refold.file_backfills`, and the staging table of each.

A staging table has a row for each record of the files, numbered without gaps from 1. It is UNLOGGED: the log writes the
same events to the WAL again, and replicas have no use for them. A crash of the server, or a failover, empties it. The
numbers show that, so that a half backfill never passes for a whole one: see `insist_on_staged`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from refold.errors import InputError
from refold.model.event.exact_json import document
from refold.postgres.locks import taken
from refold.postgres.rows import one_row
from refold.store.schema.installed import insist_on
from refold.suggest import did_you_mean

State = Literal["staging", "staged", "checked", "running", "interrupted", "paused", "done", "aborted"]
"""`interrupted` is not stored: its row says `running`, and no process holds the lane (`as_told`)."""

SCHEMA = "refold_backfill"
TABLE = "refold.file_backfills"
COLUMNS = (
    "number",
    "characters",
    "file",
    "line",
    "event_id",
    "user_id",
    "action",
    "ts",
    "metadata",
    "version",
    "problem",
    "raw",
)
"""Columns of a staging table. `characters` counts those of all records up to this one. `problem` and `raw` (the text of
the record) are set where it is no event."""


@dataclass(frozen=True, slots=True)
class FileBackfill:
    """A row of `refold.file_backfills`.

    Args:
        backfill_id: its number.
        name: its name; among those that are not over, only it has this name.
        state: `staging` while files are read; `paused` also after Ctrl-C.
        files: name, bytes and records of each file.
        options: how the files were read.
        total: staged records.
        invalid: those of them that are no events, as the staging found.
        first_ts, last_ts: when its events happened, UTC.
        created_at: when the staging began, UTC.
        created_by: login that staged it.
        checked_at: when it was checked, UTC.
        findings: what the check found (`refold.inspect.backfill.check`).
        mark: number of the last record that the log has answered.
        accepted, duplicates, conflicts: the answers so far.
        rate_limit: most records a second, as asked for.
        freshness_limit: seconds that live metrics may be behind.
        batch: records in a transaction, at present.
        per_second: records a second over the last minute.
        because: why it is slow, or paused.
        stepped_at: when the last batch was committed, UTC.
        ended_at: when it was done or aborted, UTC.
    """

    backfill_id: int
    name: str
    state: State
    files: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]
    total: int
    invalid: int
    first_ts: datetime | None
    last_ts: datetime | None
    created_at: datetime
    created_by: str
    checked_at: datetime | None
    findings: Mapping[str, Any] | None
    mark: int
    accepted: int
    duplicates: int
    conflicts: int
    rate_limit: int | None
    freshness_limit: float | None
    batch: int | None
    per_second: float | None
    because: str | None
    stepped_at: datetime | None
    ended_at: datetime | None

    @property
    def left(self) -> int:
        """Return the number of records that wait."""
        return self.total - self.mark

    @property
    def invalid_so_far(self) -> int:
        """Return the number of invalid records, also those that contracts refuse, among what the log has answered.

        With the other answers and what is left it is the total. Before the first answer: those that the staging found.
        """
        return self.mark - self.accepted - self.duplicates - self.conflicts if self.mark else self.invalid

    @property
    def staging(self) -> str:
        """Return its staging table, as SQL."""
        return f"{SCHEMA}.staged_{self.backfill_id}"


_FIELDS = ", ".join(FileBackfill.__dataclass_fields__)
_HIDDEN = {"files": "'[]'::jsonb", "options": "'{}'::jsonb", "created_by": "''", "findings": "NULL::jsonb"}
"""What an observer gets instead of what it may not read."""
_SHOWN = ", ".join(
    f"{_HIDDEN[name]} AS {name}" if name in _HIDDEN else name for name in FileBackfill.__dataclass_fields__
)


def insist_on_tables(conn: psycopg.Connection) -> None:
    """Raise NotInstalled if the database is of a version without backfills from files."""
    insist_on(conn, "refold.file_backfills")


def every(conn: psycopg.Connection, *, open_only: bool = False) -> list[FileBackfill]:
    """Return all backfills from files, oldest first; an observer sees no name of a file and no finding."""
    condition = "ended_at IS NULL" if open_only else "true"
    detailed = conn.execute("SELECT has_column_privilege('refold.file_backfills', 'findings', 'SELECT')").fetchone()
    fields = _FIELDS if detailed == (True,) else _SHOWN
    with conn.cursor(row_factory=class_row(FileBackfill)) as cursor:
        return cursor.execute(
            f"SELECT {fields} FROM refold.file_backfills WHERE {condition} ORDER BY backfill_id".encode()
        ).fetchall()


def as_told(conn: psycopg.Connection, found: Sequence[FileBackfill]) -> list[FileBackfill]:
    """Return backfills as people are told of them: one that runs, although no process holds the lane, is interrupted.

    Args:
        conn: acts as one of `READERS`.
        found: backfills that were read just now.
    """
    if all(one.state != "running" for one in found) or taken(conn, TABLE):
        return list(found)
    # It may have ended between the two looks.
    now = {one.backfill_id: one for one in every(conn)}
    return [_interrupted(now[one.backfill_id]) for one in found]


def _interrupted(one: FileBackfill) -> FileBackfill:
    if one.state != "running":
        return one
    because = f"nobody runs it: `refold backfill resume {one.name}` goes on"
    return replace(one, state="interrupted", per_second=None, because=because)


def known(conn: psycopg.Connection, name: str, *, over: bool = False) -> FileBackfill:
    """Return the backfill of a name that is not over; with `over`, else the last one that was.

    Raises:
        InputError: there is none.
    """
    all_of_them = every(conn)
    found = [one for one in all_of_them if one.name == name]
    current = next((one for one in found if one.ended_at is None), None)
    if current is not None:
        return current
    if found and over:
        return found[-1]
    if found:
        raise InputError(
            f"the backfill {name} is over: it is {found[-1].state}",
            remedy=f"`refold backfill stage {name} FILE…` begins another of this name.",
        )
    names = {one.name for one in all_of_them if over or one.ended_at is None}
    raise InputError(
        f"no backfill is called {name}.{did_you_mean(name, names)}",
        remedy=f"`refold backfill status` lists them; `refold backfill stage {name} FILE…` begins one.",
    )


def read(conn: psycopg.Connection, backfill_id: int, *, lock: bool = False) -> FileBackfill:
    """Return a backfill; with `lock`, hold its row until the caller's transaction ends."""
    with conn.cursor(row_factory=class_row(FileBackfill)) as cursor:
        found = cursor.execute(
            f"SELECT {_FIELDS} FROM refold.file_backfills WHERE backfill_id = %s".encode()
            + (b" FOR UPDATE" if lock else b""),
            (backfill_id,),
        ).fetchone()
    assert found is not None
    return found


def begin(conn: psycopg.Connection, name: str, options: Mapping[str, Any]) -> FileBackfill:
    """Add a backfill and its empty staging table.

    Args:
        conn: acts as refold_backfill; the caller's transaction.
        name: its name.
        options: how the files are read.

    Raises:
        psycopg.errors.UniqueViolation: one of this name is not over.
        InputError: it is no name.
    """
    try:
        (backfill_id,) = one_row(
            conn,
            "INSERT INTO refold.file_backfills (name, files, options) VALUES (%s, '[]', %s) RETURNING backfill_id",
            (name, Jsonb(dict(options))),
        )
    except psycopg.errors.CheckViolation as error:
        if error.diag.constraint_name != "file_backfills_name":
            raise
        raise InputError(
            f"{name!r} cannot be the name of a backfill",
            remedy="Use lower-case letters, digits and underscores, at most 40 characters, not a digit first.",
        ) from None
    made = read(conn, backfill_id)
    conn.execute(
        f"""
        CREATE UNLOGGED TABLE {made.staging} (
            number bigint NOT NULL, characters bigint NOT NULL, file integer NOT NULL, line bigint NOT NULL,
            event_id text COLLATE "C", user_id text COLLATE "C", action text COLLATE "C", ts timestamptz,
            metadata jsonb, version integer, problem text, raw text
        )
        """.encode()
    )
    conn.execute(f"GRANT SELECT ON {made.staging} TO refold_worker, refold_inspector".encode())
    return made


def staged(conn: psycopg.Connection, backfill: FileBackfill, files: Sequence[Mapping[str, Any]]) -> FileBackfill:
    """Record that all files are staged, and make the index by which the log takes their records in order.

    Args:
        conn: acts as refold_backfill; the caller's transaction.
        backfill: the backfill.
        files: name, bytes and records of each file.
    """
    conn.execute(f"ALTER TABLE {backfill.staging} ADD PRIMARY KEY (number)".encode())
    conn.execute(f"ANALYZE {backfill.staging}".encode())
    conn.execute(
        f"""
        UPDATE refold.file_backfills AS b SET
            state = 'staged', files = %s, total = s.total, invalid = s.invalid, first_ts = s.first, last_ts = s.last
        FROM (
            SELECT count(*) AS total, count(problem) AS invalid, min(ts) AS first, max(ts) AS last
            FROM {backfill.staging}
        ) AS s
        WHERE b.backfill_id = %s AND b.state = 'staging'
        """.encode(),
        (Jsonb(list(files)), backfill.backfill_id),
    )
    return read(conn, backfill.backfill_id)


def give_up(conn: psycopg.Connection, backfill: FileBackfill) -> bool:
    """End a backfill whose files are not all staged; return whether it was one."""
    return (
        conn.execute(
            "UPDATE refold.file_backfills SET state = 'aborted', ended_at = clock_timestamp(), ended_by = session_user"
            " WHERE backfill_id = %s AND state = 'staging'",
            (backfill.backfill_id,),
        ).rowcount
        > 0
    )


def insist_on_staged(conn: psycopg.Connection, backfill: FileBackfill) -> None:
    """Raise InputError if the records of a backfill are not all there.

    Args:
        conn: may read the staging table.
        backfill: the backfill.
    """
    if backfill.state == "staging":
        raise InputError(
            f"the staging of {backfill.name} was interrupted: not all of its files were read",
            remedy=f"Run `refold backfill stage {backfill.name} FILE…` again; it begins anew.",
        )
    there = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (backfill.staging,)).fetchone() == (True,)
    # The last record is looked up by its number: to count them all would take as long as to read them.
    if not there or conn.execute(
        f"SELECT FROM {backfill.staging} WHERE number = %s".encode(), (backfill.total,)
    ).rowcount != min(1, backfill.total):
        raise lost(backfill)


def lost(backfill: FileBackfill) -> InputError:
    """Return the error for a staging table that lacks records."""
    done = f"; {backfill.mark:,} of its {backfill.total:,} records were answered before" if backfill.mark else ""
    return InputError(
        f"the server has lost what was staged for {backfill.name}, in a crash or a failover{done}",
        remedy=f"Run `refold backfill abort {backfill.name}`, then stage the same files again: records that are in the"
        " log by now count as duplicates.",
    )


def checked(
    conn: psycopg.Connection,
    backfill: FileBackfill,
    findings: Mapping[str, Any],
    plain: Callable[[object], Any] = str,
) -> FileBackfill:
    """Record what a check has found; a backfill that has begun to run keeps its state.

    Args:
        conn: acts as refold_backfill.
        backfill: the backfill.
        findings: what the check has found.
        plain: turns a value into one that JSON has a type for.
    """
    conn.execute(
        "UPDATE refold.file_backfills SET findings = %s, checked_at = clock_timestamp(),"
        " state = CASE state WHEN 'staged' THEN 'checked' ELSE state END WHERE backfill_id = %s",
        (Jsonb(dict(findings), dumps=partial(document, plain=plain)), backfill.backfill_id),
    )
    return read(conn, backfill.backfill_id)


def start(
    conn: psycopg.Connection, backfill: FileBackfill, *, rate: int | None, freshness: float, batch: int
) -> FileBackfill:
    """Record that a backfill runs. One that a killed process has left running pauses.

    Args:
        conn: acts as refold_backfill, in autocommit mode; the process holds the lock of the lane.
        backfill: the backfill.
        rate: most records a second.
        freshness: seconds that live metrics may be behind.
        batch: records in the first transaction.

    Raises:
        InputError: it has been aborted meanwhile.
    """
    with conn.transaction():
        conn.execute(
            "UPDATE refold.file_backfills SET state = 'paused', because = 'its process ended'"
            " WHERE state = 'running' AND backfill_id <> %s",
            (backfill.backfill_id,),
        )
        begun = conn.execute(
            "UPDATE refold.file_backfills SET state = 'running', because = NULL, rate_limit = %s, freshness_limit = %s,"
            " batch = %s, per_second = NULL WHERE backfill_id = %s AND state IN ('checked', 'running', 'paused')",
            (rate, freshness, batch, backfill.backfill_id),
        ).rowcount
        now = read(conn, backfill.backfill_id)
    if not begun:
        raise InputError(f"the backfill {backfill.name} cannot run: it is {now.state}")
    return now


def step(
    conn: psycopg.Connection,
    backfill: FileBackfill,
    answers: Mapping[str, int],
    *,
    began_at: datetime,
    batch: int,
    per_second: float | None,
    because: str | None,
) -> FileBackfill:
    """Move the mark of a backfill behind the records that this transaction has given to the log.

    Args:
        conn: acts as refold_backfill; the transaction that has given them, and holds the row.
        backfill: the backfill as it was locked.
        answers: the number of each answer.
        began_at: when this run began, UTC.
        batch: records in the next transaction.
        per_second: records a second over the last minute.
        because: why it is slow.
    """
    mark = backfill.mark + sum(answers.values())
    conn.execute(
        """
        UPDATE refold.file_backfills SET
            mark = %(mark)s, accepted = accepted + %(accepted)s, duplicates = duplicates + %(duplicate)s,
            conflicts = conflicts + %(conflict)s, batch = %(batch)s, per_second = %(per_second)s,
            because = %(because)s, stepped_at = clock_timestamp(),
            ran = ran + tstzmultirange(tstzrange(least(%(began)s, clock_timestamp()), clock_timestamp(), '[]'))
        WHERE backfill_id = %(id)s
        """,
        {
            "mark": mark,
            **{name: answers.get(name, 0) for name in ("accepted", "duplicate", "conflict")},
            "batch": batch,
            "per_second": per_second,
            "because": because,
            "began": began_at,
            "id": backfill.backfill_id,
        },
    )
    if mark == backfill.total:
        end(conn, backfill, "done")
    return read(conn, backfill.backfill_id)


def wait(conn: psycopg.Connection, backfill: FileBackfill, because: str) -> State:
    """Record why a backfill waits, and return its state, which somebody may have changed."""
    row = conn.execute(
        "UPDATE refold.file_backfills SET because = %s WHERE backfill_id = %s AND state = 'running'"
        " AND because IS DISTINCT FROM %s RETURNING state",
        (because, backfill.backfill_id, because),
    ).fetchone()
    return row[0] if row is not None else read(conn, backfill.backfill_id).state


def pause(conn: psycopg.Connection, backfill: FileBackfill, because: str) -> bool:
    """Pause a backfill that runs; return whether it did. Its process ends before its next batch."""
    return (
        conn.execute(
            "UPDATE refold.file_backfills SET state = 'paused', because = %s"
            " WHERE backfill_id = %s AND state = 'running'",
            (because, backfill.backfill_id),
        ).rowcount
        > 0
    )


def end(conn: psycopg.Connection, backfill: FileBackfill, state: Literal["done", "aborted"]) -> None:
    """Record that a backfill is over; `sweep` drops its staging table."""
    conn.execute(
        "UPDATE refold.file_backfills SET state = %s, ended_at = clock_timestamp(), ended_by = session_user,"
        " because = NULL WHERE backfill_id = %s AND ended_at IS NULL",
        (state, backfill.backfill_id),
    )


def sweep(conn: psycopg.Connection) -> None:
    """Drop the staging tables of backfills that are over, or that a rolled-back transaction has left.

    Args:
        conn: acts as refold_backfill, in autocommit mode.
    """
    for (table,) in conn.execute(
        """
        SELECT format('%%I.%%I', n.nspname, c.relname)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relkind = 'r' AND c.relname LIKE 'staged\\_%%'
          AND NOT EXISTS (
              SELECT FROM refold.file_backfills AS b
              WHERE b.ended_at IS NULL AND c.relname = 'staged_' || b.backfill_id
          )
        """,
        (SCHEMA,),
    ).fetchall():
        conn.execute(f"DROP TABLE IF EXISTS {table}".encode())
