"""Deploy and drop captures: from files to functions and triggers, each capture in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import psycopg
from psycopg import sql

from refold.engine.capture.catalog import Standing, standing, table_shape
from refold.errors import BuildError, DatabaseError
from refold.model.capture.capture_file import OPERATIONS, CaptureFile
from refold.model.capture.generate import generate, trigger_name
from refold.model.capture.shape import TableShape
from refold.model.capture.statements import SCHEMA, CaptureSql
from refold.model.sql_text import ident
from refold.postgres.retry import in_short_attempts
from refold.postgres.rows import one_row
from refold.store import captures as store
from refold.store.captures import Capture

LOCK_WAIT_S = 30.0
"""Seconds for which a deploy tries to lock a captured table, 200 ms at a time."""

Action = Literal["new", "changed", "repaired", "unchanged", "without file"]


@dataclass(frozen=True, slots=True)
class CaptureChange:
    """A line of the plan for captures.

    Args:
        name: the capture.
        action: `new` and `changed` come from the file; `repaired` mends what differs in the database; `without file`
            is left alone.
        because: the reason, in a few words.
        file: the file, if there is one.
        table: its table, if there is a file.
        recorded: the capture as it was deployed last, if it was.
    """

    name: str
    action: Action
    because: str
    file: CaptureFile | None = None
    table: TableShape | None = None
    recorded: Capture | None = None

    @property
    def makes(self) -> bool:
        """Return whether a deploy changes the database for it."""
        return self.action in ("new", "changed", "repaired")

    def sql(self) -> CaptureSql | None:
        """Return the SQL of the capture, with the number 0 if it has none yet."""
        if self.file is None or self.table is None:
            return None
        return generate(self.file, 0 if self.recorded is None else self.recorded.capture_id, self.table)


def plan(
    conn: psycopg.Connection, files: Sequence[tuple[CaptureFile, TableShape]], named: Collection[str]
) -> list[CaptureChange]:
    """Return what a deploy of these captures would change.

    Args:
        conn: may read refold's tables.
        files: the captures that fit their tables.
        named: all names that have a file.
    """
    recorded = {one.name: one for one in store.every(conn)}
    found = [_change(conn, file, table, recorded.get(file.name)) for file, table in files]
    return found + [
        CaptureChange(name, "without file", "no file defines it: `refold captures drop` removes it", recorded=one)
        for name, one in recorded.items()
        if name not in named
    ]


def _change(conn: psycopg.Connection, file: CaptureFile, table: TableShape, recorded: Capture | None) -> CaptureChange:
    if recorded is None:
        return CaptureChange(file.name, "new", f"it makes events of {', '.join(file.expressions)}", file, table)
    made = generate(file, recorded.capture_id, table)
    if made.fingerprint != recorded.fingerprint:
        if recorded.definition != file.source:
            because = "its file changed"
        elif recorded.columns != table.recorded() or list(made.key) != recorded.key:
            because = "its table changed"
        else:
            because = "its table has other partitions, or this version of refold captures in another way"
        return CaptureChange(file.name, "changed", because, file, table, recorded)
    damage = differences(recorded, current(conn, recorded)) or (
        [] if table.recorded() == recorded.columns else ["the columns of its table changed"]
    )
    if damage:
        return CaptureChange(file.name, "repaired", damage[0], file, table, recorded)
    because = "" if recorded.definition == file.source else "the new file makes the same SQL"
    return CaptureChange(file.name, "unchanged", because, file, table, recorded)


def current(conn: psycopg.Connection, recorded: Capture) -> Standing:
    """Return what stands in the database for a capture that was deployed."""
    return standing(conn, list(recorded.functions), _names(recorded.name))


def _names(capture: str) -> list[str]:
    return [trigger_name(capture, operation) for operation in OPERATIONS]


def differences(recorded: Capture, found: Standing) -> list[str]:
    """Return how functions and triggers differ from what was deployed, in words. Pure."""
    told = []
    for name, digest in recorded.functions.items():
        if name not in found.functions:
            told.append(f"the function {SCHEMA}.{name} is gone")
        elif found.functions[name] != digest:
            told.append(f"the function {SCHEMA}.{name} was replaced")
    if found.owners - {"refold_capture"}:
        told.append(f"its functions belong to {', '.join(sorted(found.owners - {'refold_capture'}))}")
    for table, names in recorded.triggers.items():
        for name in names:
            if (table, name) not in found.triggers:
                told.append(f"the trigger {name} is gone from {table}")
            elif not found.triggers[table, name]:
                told.append(f"the trigger {name} on {table} is disabled, or does not fire always")
    expected = {(table, name) for table, names in recorded.triggers.items() for name in names}
    told += [f"the trigger {name} also stands on {table}" for table, name in sorted(found.triggers.keys() - expected)]
    return told


def insist_on_owner(conn: psycopg.Connection, tables: Sequence[TableShape]) -> None:
    """Raise DatabaseError if the login may not create and replace triggers on one of these tables."""
    for table in tables:
        row = one_row(
            conn, "SELECT session_user::text, pg_has_role(session_user, %s::regrole, 'USAGE')", (table.owner,)
        )
        if not row[1]:
            raise DatabaseError(
                f"{row[0]} does not own {table.schema}.{table.name}, and only its owner may capture it",
                remedy=f'Deploy as its owner, or: GRANT {table.owner} TO "{row[0]}";',
            )


def deploy(conn: psycopg.Connection, changes: Sequence[CaptureChange]) -> None:
    """Make the captures of a plan, each in a transaction.

    Args:
        conn: acts as refold_capture, in autocommit mode; its login owns the tables.
        changes: the plan.

    Raises:
        DatabaseError: the login does not own a table.
        BuildError: a transaction holds a table for too long.
    """
    insist_on_owner(conn, [one.table for one in changes if one.makes and one.table is not None])
    for one in changes:
        if one.makes and one.file is not None:
            _attempts(conn, one.name, partial(_make, conn, one))


def _attempts(conn: psycopg.Connection, name: str, work: Callable[[], None]) -> None:
    try:
        in_short_attempts(conn, LOCK_WAIT_S, work)
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            f"transactions have held the table of the capture {name} for longer than {LOCK_WAIT_S:.0f} s",
            remedy="End the transactions that write to the table (pg_stat_activity, pg_locks), then run it again.",
        ) from error


def _make(conn: psycopg.Connection, change: CaptureChange) -> None:
    """Make one capture, in a transaction."""
    assert change.file is not None
    file = change.file
    # Two deploys of one capture take turns.
    conn.execute("LOCK TABLE refold.captures IN SHARE ROW EXCLUSIVE MODE")
    recorded = next((one for one in store.every(conn) if one.name == change.name), None)
    table = table_shape(conn, file.schema, file.table)
    if table is None:
        raise BuildError(f"the table {file.table} was dropped just now", remedy="Run the command again.")
    capture_id = store.reserve(conn) if recorded is None else recorded.capture_id
    made = generate(file, capture_id, table)
    for function in made.functions:
        conn.execute(function.text.encode())
        conn.execute(f"REVOKE ALL ON FUNCTION {function.signature} FROM PUBLIC".encode())
    login = sql.Identifier(str(one_row(conn, "SELECT session_user::text")[0]))
    signatures = sql.SQL(", ").join(sql.SQL(one.signature) for one in made.functions)
    # Needed to create a trigger, and not for the trigger to fire.
    conn.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(signatures, login))
    expected = {(one.on, one.name) for one in made.triggers}
    conn.execute("SET LOCAL ROLE NONE")
    for statement in made.grants:
        conn.execute(statement.encode())
    for on, name in standing(conn, [], _names(file.name)).triggers.keys() - expected:
        conn.execute(f"DROP TRIGGER {ident(name)} ON {on}".encode())
    for trigger in made.triggers:
        conn.execute(trigger.text.encode())
        conn.execute(trigger.always.encode())
    conn.execute("SET LOCAL ROLE refold_capture")
    conn.execute(sql.SQL("REVOKE EXECUTE ON FUNCTION {} FROM {}").format(signatures, login))
    for name in set(recorded.functions if recorded else ()) - {one.name for one in made.functions}:
        _drop_function(conn, name)
    found = standing(conn, [one.name for one in made.functions], [])
    triggers: dict[str, list[str]] = {}
    for trigger in made.triggers:
        triggers.setdefault(trigger.on, []).append(trigger.name)
    store.record(
        conn,
        capture_id,
        {
            "name": file.name,
            "table_schema": table.schema,
            "table_name": table.name,
            "definition": file.source,
            "fingerprint": made.fingerprint,
            "operations": list(file.expressions),
            "key": list(made.key),
            "columns": table.recorded(),
            "functions": found.functions,
            "triggers": triggers,
            "two_phase": file.two_phase,
        },
    )


def drop(conn: psycopg.Connection, capture: Capture) -> None:
    """Drop a capture: its triggers, its functions and its record. Its events stay in the log, and rejected rows too.

    Args:
        conn: acts as refold_capture, in autocommit mode; its login owns the table.
        capture: the capture.

    Raises:
        DatabaseError: the login does not own the table.
        BuildError: a transaction holds the table for too long.
    """
    table = table_shape(conn, capture.table_schema, capture.table_name)
    insist_on_owner(conn, [] if table is None else [table])

    def work() -> None:
        conn.execute("LOCK TABLE refold.captures IN SHARE ROW EXCLUSIVE MODE")
        conn.execute("SET LOCAL ROLE NONE")
        for on, name in standing(conn, [], _names(capture.name)).triggers:
            conn.execute(f"DROP TRIGGER {ident(name)} ON {on}".encode())
        conn.execute("SET LOCAL ROLE refold_capture")
        for name in capture.functions:
            _drop_function(conn, name)
        store.forget(conn, capture)

    _attempts(conn, capture.name, work)


def _drop_function(conn: psycopg.Connection, name: str) -> None:
    """Drop the functions of a name: a capture has one of each."""
    for (signature,) in conn.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = %s::regnamespace AND p.proname = %s",
        (SCHEMA, name),
    ).fetchall():
        conn.execute(f"DROP FUNCTION {signature}".encode())
