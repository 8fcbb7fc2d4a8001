"""Checks that `metrics` has the view of every live metric, and that the view is the one that refold created."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from refold.engine.publish.canary_views import by_reader, exposed, replace
from refold.engine.publish.views import METRICS_SCHEMA, once_let_go, stands, switch_view
from refold.errors import BuildError, RefoldError
from refold.store import incidents
from refold.store.builds.build import Build, by_id, live_builds
from refold.store.builds.compiled import Compiler

LOCK_WAIT_S = 10.0
"""Seconds for which the repair of a view waits for sessions that read it."""
AGAIN = "its view is made again"

_TEXT = "SELECT pg_get_viewdef(c.oid) FROM pg_class AS c WHERE c.oid = to_regclass(%s) AND c.relkind = 'v'"


def standing(conn: psycopg.Connection, name: str) -> str | None:
    """Return the definition of the view of a metric, as Postgres prints it; None if there is no view of that name.

    Args:
        conn: acts as refold_worker.
        name: the metric.
    """
    return _text(conn, sql.Identifier(METRICS_SCHEMA, name))


def is_shown(conn: psycopg.Connection, build: Build, compiler: Compiler) -> bool:
    """Return whether a metric's view exists and is the one that refold creates; take no lock that blocks readers.

    Args:
        conn: acts as refold_worker, in autocommit mode; or the caller's transaction, which may write.
        build: the live build of the metric.
        compiler: makes the SQL of builds.

    Raises:
        BuildError: the build is a transform, and this process lacks its code.
    """
    canary = exposed(conn, build.projection)
    select = compiler.of(conn, build).statements.view if canary is None else ""
    text = standing(conn, build.projection)
    if text is None:
        return False
    if canary is not None:
        select = by_reader(conn, compiler, build, by_id(conn, canary.build_id)).select
    known = (build.build_id, None if canary is None else canary.build_id)
    # A temporary view for each check would leave dead rows in the catalog, every minute and for each metric.
    if text != compiler.shown.get(known):
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("CREATE TEMPORARY VIEW refold_shown AS {}").format(sql.SQL(select)))
            made = _text(conn, sql.Identifier("pg_temp", "refold_shown"))
        if text != made:
            return False
        compiler.shown[known] = text
    return True


def is_hidden(conn: psycopg.Connection, build: Build, compiler: Compiler) -> bool:
    """Return whether a metric's view is missing or differs from the one that refold creates.

    Without the code of a transform, only a missing view is found.

    Args:
        conn: as for `is_shown`.
        build: the live build of the metric, as read a moment ago.
        compiler: makes the SQL of builds.
    """
    try:
        shown = is_shown(conn, build, compiler)
    except RefoldError:
        # This process lacks the transform, or has another version; the check of the files reports that.
        shown = stands(conn, build.projection)
    if shown:
        return False
    # A switch, a rename or a drop may have happened since.
    now = by_id(conn, build.build_id)
    return (now.state, now.projection) == ("live", build.projection)


def hidden(conn: psycopg.Connection, compiler: Compiler) -> list[str]:
    """Return the live metrics whose views are missing or differ; see `is_hidden`.

    Args:
        conn: acts as refold_worker, in autocommit mode; or the caller's transaction, which may write.
        compiler: makes the SQL of builds.
    """
    return [build.projection for build in live_builds(conn) if is_hidden(conn, build, compiler)]


def refused_again(conn: psycopg.Connection, names: Iterable[str]) -> list[RefoldError]:
    """Return an error for each metric in whose place is a relation that refold may not replace.

    Args:
        conn: acts as refold_worker.
        names: the metrics.
    """
    rows = conn.execute(
        "SELECT c.relname::text, pg_get_userbyid(c.relowner)::text FROM pg_class AS c"
        " WHERE c.relnamespace = to_regnamespace(%s) AND c.relname = ANY (%s)"
        " AND (c.relkind <> 'v' OR NOT pg_has_role(c.relowner, 'USAGE')) ORDER BY 1",
        (METRICS_SCHEMA, list(names)),
    ).fetchall()
    return [_not_ours(name, f"its owner is {owner}") for name, owner in rows]


def shown_again(
    conn: psycopg.Connection,
    build: Build,
    compiler: Compiler,
    *,
    by: str,
    recreate_foreign: bool = False,
    seconds: float = LOCK_WAIT_S,
) -> bool:
    """Recreate the view of a live build if it is missing or differs; return whether it did.

    The incident `hidden` of the metric is resolved then.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        build: the build.
        compiler: makes the SQL of builds.
        by: name of the program that does it, for the incident.
        recreate_foreign: if the columns change, also drop and recreate views outside `metrics`.
        seconds: longest time to try while sessions hold the view.

    Raises:
        BuildError: a session holds the view, views outside `metrics` depend on it, or refold does not own it.
    """
    try:
        if is_shown(conn, build, compiler):
            return False
        compiled = compiler.of(conn, build)
    except RefoldError:
        # This process lacks the transform; a process that has it can check the view.
        return False
    name = build.projection

    def switch() -> bool:
        # Check again under the lock of the build: a switch or a rename may have happened meanwhile.
        row = conn.execute(
            "SELECT state, projection FROM refold.builds WHERE build_id = %s FOR KEY SHARE", (build.build_id,)
        ).fetchone()
        if row != ("live", name):
            return False
        try:
            switch_view(conn, name, compiled, recreate_foreign=recreate_foreign)
            canary = exposed(conn, name)
            if canary is not None:
                replace(conn, name, by_reader(conn, compiler, build, by_id(conn, canary.build_id)))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.WrongObjectType) as error:
            raise _not_ours(name, str(error.diag.message_primary)) from error
        incidents.resolve(conn, "hidden", name, by=by, outcome={"because": AGAIN})
        return True

    return once_let_go(
        conn,
        seconds,
        switch,
        held=f"the view metrics.{name} is not the one of its metric, and a session holds it",
        then="`refold deploy`",
    )


def _not_ours(name: str, why: str) -> BuildError:
    return BuildError(
        f"metrics.{name} is not refold's view, and refold may not replace it: {why}",
        remedy="Drop it as its owner. Then run `refold deploy`, or wait a minute for a worker to create the view.",
    )


def _text(conn: psycopg.Connection, view: sql.Identifier) -> str | None:
    row = conn.execute(_TEXT, (view.as_string(conn),)).fetchone()
    return None if row is None else row[0]
