"""Whether `metrics` shows what it should: the view of every live metric, and that as refold made it."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg import sql

from refold.engine.publish.views import METRICS_SCHEMA, once_let_go, stands, switch_view
from refold.errors import BuildError, RefoldError
from refold.store import incidents
from refold.store.builds.build import Build, by_id, live_builds
from refold.store.builds.compiled import Compiler

LOCK_WAIT_S = 10.0
"""Seconds for which a view that is not what it should be waits for those who read it."""
AGAIN = "its view is made again"

_TEXT = "SELECT pg_get_viewdef(c.oid) FROM pg_class AS c WHERE c.oid = to_regclass(%s) AND c.relkind = 'v'"


def standing(conn: psycopg.Connection, name: str) -> str | None:
    """What stands as the view of a metric, as Postgres writes it; None where there is no view of that name.

    Args:
        conn: acts as refold_worker.
        name: the metric.
    """
    return _text(conn, sql.Identifier(METRICS_SCHEMA, name))


def is_shown(conn: psycopg.Connection, build: Build, compiler: Compiler) -> bool:
    """Whether a metric's view stands, and is the one that refold makes; takes no lock that a reader waits for.

    Args:
        conn: acts as refold_worker, in autocommit mode; or the caller's transaction, which may write.
        build: its live build.
        compiler: the SQL of builds.

    Raises:
        BuildError: the build is a transform whose code is not here.
    """
    compiled = compiler.of(conn, build)
    text = standing(conn, build.projection)
    if text is None:
        return False
    # A temporary view at each look would leave dead rows in the catalog, every minute and for each metric.
    if text != compiler.shown.get(build.build_id):
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("CREATE TEMPORARY VIEW refold_shown AS {}").format(sql.SQL(compiled.statements.view)))
            made = _text(conn, sql.Identifier("pg_temp", "refold_shown"))
        if text != made:
            return False
        compiler.shown[build.build_id] = text
    return True


def is_hidden(conn: psycopg.Connection, build: Build, compiler: Compiler) -> bool:
    """Whether a metric's view is another than it should be; as far as its code is here, whether it is there at all.

    Args:
        conn: as for `is_shown`.
        build: what was its live build a moment ago.
        compiler: the SQL of builds.
    """
    try:
        shown = is_shown(conn, build, compiler)
    except RefoldError:
        # Its transform is not here, or is another: that is told with the files.
        shown = stands(conn, build.projection)
    if shown:
        return False
    # A switch, a renaming or a removal may have come between.
    now = by_id(conn, build.build_id)
    return (now.state, now.projection) == ("live", build.projection)


def hidden(conn: psycopg.Connection, compiler: Compiler) -> list[str]:
    """The live metrics that their views do not show; as far as their code is here.

    Args:
        conn: acts as refold_worker, in autocommit mode; or the caller's transaction, which may write.
        compiler: the SQL of builds.
    """
    return [build.projection for build in live_builds(conn) if is_hidden(conn, build, compiler)]


def refused_again(conn: psycopg.Connection, names: Iterable[str]) -> list[RefoldError]:
    """What stands where the views of some metrics should be, and is not refold's to replace.

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
    return [_not_ours(name, f"it belongs to {owner}") for name, owner in rows]


def shown_again(
    conn: psycopg.Connection,
    build: Build,
    compiler: Compiler,
    *,
    by: str,
    recreate_foreign: bool = False,
    seconds: float = LOCK_WAIT_S,
) -> bool:
    """Makes the view of a live build again, if it is not what it should be; says whether it was so.

    An incident that says so is over then.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        build: the build.
        compiler: the SQL of builds.
        by: who does it, for the incident.
        recreate_foreign: where its columns change by that, also make again views outside `metrics`.
        seconds: for how long to try while readers hold it.

    Raises:
        BuildError: a reader holds the view, others' views stand on what stands there now, or that is another's.
    """
    try:
        shown = is_shown(conn, build, compiler)
    except RefoldError:
        # A transform that is not here: whoever has it can look.
        return False
    if shown:
        return False
    compiled = compiler.of(conn, build)
    name = build.projection

    def switch() -> bool:
        # Under the lock of the build: a switch may have taken its view meanwhile, or a renaming its name.
        row = conn.execute(
            "SELECT state, projection FROM refold.builds WHERE build_id = %s FOR KEY SHARE", (build.build_id,)
        ).fetchone()
        if row != ("live", name):
            return False
        try:
            switch_view(conn, name, compiled, recreate_foreign=recreate_foreign)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.WrongObjectType) as error:
            raise _not_ours(name, str(error.diag.message_primary)) from error
        incidents.resolve(conn, "hidden", name, by=by, outcome={"because": AGAIN})
        return True

    return once_let_go(
        conn,
        seconds,
        switch,
        held=f"metrics.{name} is not the view of its metric, and a session holds it",
        then="`refold deploy`",
    )


def _not_ours(name: str, why: str) -> BuildError:
    return BuildError(
        f"what stands as metrics.{name} is not refold's: {why}",
        remedy="Drop it as its owner; then `refold deploy`, or a worker within a minute, makes the view.",
    )


def _text(conn: psycopg.Connection, view: sql.Identifier) -> str | None:
    row = conn.execute(_TEXT, (view.as_string(conn),)).fetchone()
    return None if row is None else row[0]
