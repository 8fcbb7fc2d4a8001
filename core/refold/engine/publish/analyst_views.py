"""The views of `sql/views/`: created as their files say, in one transaction with their metrics, or refused before."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from refold.engine.publish.privileges import Grant, grant, grants_on
from refold.engine.publish.scans import Scan, scans
from refold.engine.publish.views import (
    METRICS_SCHEMA,
    Dependant,
    dependants_of,
    once_let_go,
    recreate,
    refuse_others,
    without_column,
)
from refold.errors import BuildError, RefoldError, ViewError, at_once
from refold.model.projection.view_file import Statement, ViewFile, in_schema, load_views, mentions, unqualified
from refold.postgres.sqlstate import transient
from refold.store.builds.build import kept
from refold.suggest import closest

LOCK_WAIT_S = 10.0
"""Seconds for which a change of views waits for sessions that read them."""

_LATER = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)
"""Errors of a view that reads another view or column which does not exist yet."""
_ANEW = (psycopg.errors.InvalidTableDefinition, psycopg.errors.DuplicateTable)
"""Errors of CREATE OR REPLACE VIEW: columns were removed, or changed type or order."""
_CHECKED = "pg_temp"
"""Schema in which views are tried: no other session sees it, and the attempt locks no view of `metrics`."""


class _Refused(Exception):
    """Postgres refuses a statement of a view's file."""

    def __init__(self, file: ViewFile, statement: Statement, cause: psycopg.Error) -> None:
        super().__init__(str(cause))
        self.file = file
        self.statement = statement
        self.cause = cause


def apply_analyst_views(conn: psycopg.Connection, folder: Path) -> list[str]:
    """Create or replace the views of a folder as its files say.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        folder: the folder; nothing happens when it does not exist.

    Returns:
        The names of the views.

    Raises:
        ViewError: a file is wrong, or its view cannot be created (`Mistakes` if there are several).
    """
    mistakes: list[RefoldError] = []
    files = load_views(folder, {build.projection for build in kept(conn)}, mistakes)
    if mistakes:
        raise at_once(mistakes)
    apply_views(conn, files)
    return [file.name for file in files]


def apply_views(conn: psycopg.Connection, files: Sequence[ViewFile], *, recreate_foreign: bool = False) -> None:
    """Create or replace views as their files say, all in one transaction.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        files: the views.
        recreate_foreign: if columns change, also drop and recreate views outside `metrics`.

    Raises:
        ViewError: a view cannot be created (`Mistakes` if there are several).
        BuildError: a session holds a view for too long, or views outside `metrics` depend on it.
    """
    if not files:
        return
    once_let_go(
        conn,
        LOCK_WAIT_S,
        lambda: make_views(conn, files, (), recreate_foreign=recreate_foreign),
        held=f"a session has held a view of sql/views for longer than {LOCK_WAIT_S:.0f} s",
        then="`refold deploy`",
    )


def make_views(
    conn: psycopg.Connection,
    files: Iterable[ViewFile],
    dropped: Iterable[Dependant],
    *,
    earlier: Iterable[ViewFile] = (),
    recreate_foreign: bool = False,
) -> None:
    """Create views as their files say, and recreate those that a switch has dropped; in the caller's transaction.

    A view that equals its file is not touched: replacing it would take a lock for which readers wait.

    Args:
        conn: acts as refold_worker; has a short lock_timeout.
        files: the views that have a file.
        dropped: views that were dropped with a metric. One that has a file is created from its file.
        earlier: for a rollback, the files of the earlier deployment; they replace views that need a column which the
            metric lacks then.
        recreate_foreign: if columns change, also drop and recreate views outside `metrics`.

    Raises:
        ViewError: a view cannot be created (`Mistakes` if there are several).
        BuildError: a view without a file cannot be recreated, or views outside `metrics` depend on a changed one.
        psycopg.errors.LockNotAvailable: a session holds a view.
    """
    by_name = {file.name: file for file in files}
    before = {file.name: file for file in earlier}
    grants: dict[str, list[Grant]] = {}
    left: list[ViewFile | Dependant] = list(by_name.values())

    def again(gone: Iterable[Dependant]) -> None:
        for one in gone:
            file = None if one.foreign else by_name.get(one.name)
            if file is None:
                left.append(one)
                continue
            grants[one.name] = list(one.grants)
            if file not in left:
                left.append(file)

    again(dropped)
    while left:
        todo, left = left, []
        refused: list[_Refused | BuildError] = []
        for one in todo:
            try:
                with conn.transaction():
                    if isinstance(one, Dependant):
                        recreate(conn, one)
                        gone: Sequence[Dependant] = ()
                    else:
                        gone = _made(conn, one, grants.get(one.name, []), recreate_foreign=recreate_foreign)
            except _Refused as error:
                refused.append(error)
                left.append(one)
            except BuildError as error:
                if not isinstance(error.__cause__, _LATER):
                    raise
                if isinstance(one, Dependant) and not one.foreign and one.name in before:
                    by_name[one.name] = before.pop(one.name)
                    again([one])
                    continue
                refused.append(error)
                left.append(one)
            except psycopg.errors.UndefinedTable as error:
                # It reads a view that does not exist yet.
                refused.append(BuildError(f"{one.name} cannot be recreated: {error.diag.message_primary}"))
                left.append(one)
            else:
                again(gone)
        if len(refused) == len(todo):
            raise at_once([_error(conn, one, by_name) if isinstance(one, _Refused) else one for one in refused])


def refused_views(
    conn: psycopg.Connection,
    metrics: Mapping[str, str],
    files: Sequence[ViewFile],
    unknown: Collection[str] = (),
    *,
    recreate_foreign: bool = False,
    scanned: list[Scan] | None = None,
) -> list[RefoldError]:
    """Return the errors of views if some metrics were switched now; change nothing, and take no lock on a view.

    All views are created in pg_temp and rolled back.

    Args:
        conn: the caller's transaction, as refold_worker.
        metrics: the metrics that get new tables, each with the SELECT of its view.
        files: the views that have a file.
        unknown: metrics that are wrong themselves; views that read them are not checked.
        recreate_foreign: as for `make_views`.
        scanned: receives the views that would read a whole stream at each read, if there are no errors.
    """
    mistakes: list[RefoldError] = []
    with conn.transaction(force_rollback=True):
        for name, select in metrics.items():
            conn.execute(sql.SQL("CREATE TEMPORARY VIEW {} AS {}").format(sql.Identifier(name), sql.SQL(select)))
        changed = {*metrics, *(file.name for file in files)}
        silent = set(unknown)
        left = list(files)
        made: list[str] = list(metrics)
        while left:
            todo, left = left, []
            refused: list[_Refused] = []
            for file in todo:
                if any(mentions(statement.text, silent) for statement in file.statements):
                    silent.add(file.name)
                    continue
                try:
                    with conn.transaction():
                        _run(conn, file, changed)
                    made.append(file.name)
                    mistakes += _unqualified(file, changed)
                except _Refused as error:
                    refused.append(error)
                    left.append(file)
            if len(refused) == len(todo):
                wrong = {error.file.name for error in refused}
                # A view that reads another wrong view may be right itself.
                own = [one for one in refused if not any(
                    mentions(s.text, wrong - {one.file.name}) for s in one.file.statements)]  # fmt: skip
                mistakes += [_error(conn, one, changed) for one in own or refused]
                break
        mistakes += _in_the_way(conn, made, changed, recreate_foreign=recreate_foreign)
        if scanned is not None and not mistakes:
            scanned += scans(conn, [file.name for file in files], tried=True)
    return mistakes


def differing(conn: psycopg.Connection, files: Iterable[ViewFile]) -> list[str]:
    """Return the names of the views that differ from their files; change nothing.

    Args:
        conn: the caller's transaction, as refold_worker; it may write.
        files: the views.
    """
    return [file.name for file in files if not _stands(conn, file)]


def _unqualified(file: ViewFile, names: Collection[str]) -> list[ViewError]:
    """Return an error for each name without a schema: it is found in pg_temp, but would not be found in `metrics`."""
    return [
        ViewError(
            f'relation "{name}" does not exist',
            path=file.path,
            line=statement.line,
            remedy=f"Write {METRICS_SCHEMA}.{name}.",
        )
        for statement in file.statements
        if statement.verb == "CREATE" and (name := unqualified(statement.text, names)) is not None
    ]


def _in_the_way(
    conn: psycopg.Connection, names: Sequence[str], changed: Collection[str], *, recreate_foreign: bool
) -> list[RefoldError]:
    """Return the errors of views that depend on changed columns; the new views exist in pg_temp."""
    mistakes: list[RefoldError] = []
    tried: set[tuple[str, str]] = set()
    renamed = set(changed)
    for name in names:
        if _replaceable(conn, name):
            continue
        dependants = dependants_of(conn, name)
        try:
            refuse_others(name, dependants, recreate_foreign=recreate_foreign)
        except BuildError as error:
            mistakes.append(error)
            continue
        for one in dependants:
            if (one.schema, one.name) in tried or (not one.foreign and one.name in changed):
                continue
            tried.add((one.schema, one.name))
            text = in_schema(f"CREATE TEMPORARY VIEW {_quoted(conn, one.name)} AS {one.definition}", renamed, _CHECKED)
            try:
                with conn.transaction():
                    conn.execute(text.encode())
                renamed |= set() if one.foreign else {one.name}
            except psycopg.errors.UndefinedColumn as error:
                mistakes.append(
                    BuildError(
                        f"{one.schema}.{one.name} uses a removed column: {error.diag.message_primary}",
                        remedy=without_column(one),
                    )
                )
            except psycopg.errors.DuplicateTable:
                # pg_temp has a view of this name already; the switch itself finds any error.
                continue
    return mistakes


_COLUMNS = """
SELECT array_agg((attname, atttypid, atttypmod, attcollation)::text ORDER BY attnum)
FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0
"""


def _replaceable(conn: psycopg.Connection, name: str) -> bool:
    """Return whether CREATE OR REPLACE can turn the view in `metrics` into the one of this name in pg_temp."""
    old, new = (
        (conn.execute(_COLUMNS, (sql.Identifier(schema, name).as_string(conn),)).fetchone() or (None,))[0]
        for schema in (METRICS_SCHEMA, _CHECKED)
    )
    return old is None or new is None or new[: len(old)] == old


def _made(conn: psycopg.Connection, file: ViewFile, grants: list[Grant], *, recreate_foreign: bool) -> list[Dependant]:
    """Create or replace a view that differs from its file; return the views that had to be dropped for it."""
    if _stands(conn, file) and all(one.verb not in ("GRANT", "REVOKE") for one in file.statements):
        return []
    view = sql.Identifier(METRICS_SCHEMA, file.name)
    dropped: list[Dependant] = []
    try:
        with conn.transaction():
            _run(conn, file)
    except _Refused as error:
        if not isinstance(error.cause, _ANEW):
            raise
        # The file defines the view completely, so it can be dropped and created.
        dropped = dependants_of(conn, file.name)
        refuse_others(file.name, dropped, recreate_foreign=recreate_foreign)
        grants = grants_on(conn, METRICS_SCHEMA, file.name)
        conn.execute(sql.SQL("DROP VIEW {} CASCADE").format(view))
        _run(conn, file)
    grant(conn, METRICS_SCHEMA, file.name, [*grants, Grant("SELECT", "refold_analyst")])
    return dropped


def _stands(conn: psycopg.Connection, file: ViewFile) -> bool:
    """Return whether a view equals its file, privileges aside; tried in pg_temp, without a lock on the view."""
    try:
        with conn.transaction(force_rollback=True):
            _run(conn, file, {file.name})
            there, here = (
                conn.execute(_LOOKS, (sql.Identifier(schema, file.name).as_string(conn),)).fetchone()
                for schema in (METRICS_SCHEMA, _CHECKED)
            )
    except _Refused:
        return False
    return there == here


_LOOKS = """
SELECT pg_get_viewdef(c.oid), obj_description(c.oid, 'pg_class'), c.reloptions::text,
       (SELECT array_agg((attname, col_description(attrelid, attnum))::text ORDER BY attnum)::text
        FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0)
FROM pg_class AS c WHERE c.oid = to_regclass(%s) AND c.relkind = 'v'
"""


def _run(conn: psycopg.Connection, file: ViewFile, tried: Collection[str] = ()) -> None:
    """Run the statements of a file; `tried` names the views that are in pg_temp instead of `metrics`."""
    for statement in file.statements:
        if statement.verb == "DROP":
            # `_made` drops the view if it has to.
            continue
        text = in_schema(statement.text, tried, _CHECKED) if tried else statement.text
        try:
            # Prepared: that protocol allows only a single statement, whatever the text holds.
            conn.execute(text.encode(), prepare=True)
        except psycopg.Error as error:
            if transient(error):
                raise
            raise _Refused(file, statement, error) from error


def _error(conn: psycopg.Connection, refused: _Refused, names: Iterable[str]) -> ViewError:
    """Return the error of a file with its remedy; `names` are the views that will exist beside it."""
    diagnosis = refused.cause.diag
    message = (diagnosis.message_primary or str(refused.cause)).replace(f"{_CHECKED}.", f"{METRICS_SCHEMA}.")
    at = int(diagnosis.statement_position or 1) - 1
    line = refused.statement.line + refused.statement.text[:at].count("\n")
    remedy = diagnosis.message_hint
    if isinstance(refused.cause, psycopg.errors.UndefinedTable):
        standing = conn.execute("SELECT viewname FROM pg_views WHERE schemaname = %s", (METRICS_SCHEMA,)).fetchall()
        known = sorted({*names, *(str(name) for (name,) in standing)} - {refused.file.name})
        missing = message.partition('"')[2].partition('"')[0].rpartition(".")[2]
        close = closest(missing, known)
        remedy = f"Write {METRICS_SCHEMA}.{close}." if close else f"There are: {', '.join(known) or 'none'}."
    elif isinstance(refused.cause, psycopg.errors.UndefinedColumn) and not remedy:
        remedy = "Use a column that the metric has: `refold explain NAME` lists them."
    return ViewError(message, path=refused.file.path, line=line, remedy=remedy or "Correct the file, or remove it.")


def _quoted(conn: psycopg.Connection, name: str) -> str:
    return sql.Identifier(name).as_string(conn)
