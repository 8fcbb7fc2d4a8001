"""The stable views in schema `metrics`: what analysts see, switched without their noticing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg import sql

from refold.engine.publish.privileges import Grant, give_back, grant, grants_on
from refold.errors import BuildError
from refold.postgres.retry import in_short_attempts
from refold.store.builds.compiled import CompiledBuild

T = TypeVar("T")

METRICS_SCHEMA = "metrics"
BARRIER = "security_barrier=true"
"""Option of a view that leaves rows out. Without it Postgres may evaluate an analyst's condition first, and a cheap
function in that prints the rows that the view was to hide."""
_HIDES = re.compile(r"(?<!FILTER \()\b(WHERE|HAVING)\b")


@dataclass(frozen=True, slots=True)
class Dependant:
    """A view that reads a metric, as it has to be made again."""

    schema: str
    name: str
    kind: str
    definition: str
    options: tuple[str, ...]
    comment: str | None
    owner: str
    grants: tuple[Grant, ...]

    @property
    def foreign(self) -> bool:
        """Whether it is somebody else's: outside the schema `metrics`."""
        return self.schema != METRICS_SCHEMA


def switch_view(
    conn: psycopg.Connection,
    name: str,
    compiled: CompiledBuild,
    *,
    recreate_foreign: bool = False,
    dropped: list[Dependant] | None = None,
) -> None:
    """Points the view of a metric at a build, in the caller's transaction.

    Args:
        conn: acts as refold_worker; has a short lock_timeout.
        name: the metric.
        compiled: the build's SQL.
        recreate_foreign: where the columns change, also drop and make again views outside `metrics`.
        dropped: gets what stood on the view and was dropped, for the caller to make again; by default it is made again
            at once, as it was.

    Raises:
        BuildError: the columns change, and somebody else's views stand on them.
        psycopg.errors.LockNotAvailable: a reader holds the view; try the whole promote again.
    """
    view = sql.Identifier(METRICS_SCHEMA, name)
    body = body_of([BARRIER] if compiled.statements.view_hides else [], compiled.statements.view)
    try:
        with conn.transaction():
            conn.execute(sql.SQL("CREATE OR REPLACE VIEW {} {}").format(view, body))
    except psycopg.errors.InvalidTableDefinition:
        # Columns went, or changed type or order: what stands on the view must be made again around it.
        dependants = dependants_of(conn, name)
        refuse_others(name, dependants, recreate_foreign=recreate_foreign)
        grants = grants_on(conn, METRICS_SCHEMA, name)
        conn.execute(sql.SQL("DROP VIEW {} CASCADE").format(view))
        conn.execute(sql.SQL("CREATE VIEW {} {}").format(view, body))
        grant(conn, METRICS_SCHEMA, name, grants)
        if dropped is None:
            for one in dependants:
                recreate(conn, one)
        else:
            dropped += dependants
    plan = compiled.plan
    conn.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(plan.description or None)))
    for column in plan.columns:
        conn.execute(
            sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(
                view, sql.Identifier(column.name), sql.Literal(column.comment)
            )
        )
    conn.execute(sql.SQL("GRANT SELECT ON {} TO refold_analyst").format(view))


def refuse_others(name: str, dependants: Sequence[Dependant], *, recreate_foreign: bool) -> None:
    """Refuses to drop a view, whose columns change, with what is not refold's to make again.

    Raises:
        BuildError: materialized views stand on it, or views outside `metrics` and nobody has allowed it.
    """
    foreign = [f"{one.schema}.{one.name}" for one in dependants if one.foreign]
    if any(one.kind != "v" for one in dependants) or (foreign and not recreate_foreign):
        names = ", ".join(foreign or [one.name for one in dependants if one.kind != "v"])
        raise BuildError(
            f"the columns of metrics.{name} change, and {names} depends on it",
            remedy="Drop it first, or let refold make the views again: --recreate-views.",
        ) from None


def drop_view(conn: psycopg.Connection, name: str) -> None:
    """Removes the view of a metric that is no longer live; fails when something stands on it."""
    conn.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(METRICS_SCHEMA, name)))


def stands(conn: psycopg.Connection, name: str) -> bool:
    """Whether there is anything of this name in `metrics`."""
    view = sql.Identifier(METRICS_SCHEMA, name).as_string(conn)
    return conn.execute("SELECT to_regclass(%s) IS NOT NULL", (view,)).fetchone() == (True,)


def once_let_go(conn: psycopg.Connection, seconds: float, work: Callable[[], T], *, held: str, then: str) -> T:
    """Runs a transaction that needs views for which readers may have to leave first.

    Args:
        conn: in autocommit mode.
        seconds: for how long to try.
        work: what to do in the transaction; it may run several times.
        held: what to say where a reader stays.
        then: what to do once that has gone.

    Raises:
        BuildError: a reader stays.
    """
    try:
        return in_short_attempts(conn, seconds, work)
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            held, remedy=f"End its transaction (see pg_stat_activity for 'idle in transaction'), then {then}."
        ) from error


def dependants_of(conn: psycopg.Connection, name: str) -> list[Dependant]:
    """Views that read a metric, at any depth, nearest first."""
    rows = conn.execute(
        """
        WITH RECURSIVE above (oid, depth) AS (
            SELECT %s::regclass::oid, 0
            UNION
            SELECT r.ev_class, above.depth + 1
            FROM above
            JOIN pg_depend AS d ON d.refobjid = above.oid AND d.classid = 'pg_rewrite'::regclass
            JOIN pg_rewrite AS r ON r.oid = d.objid AND r.ev_class <> above.oid
        )
        SELECT n.nspname, c.relname, c.relkind, pg_get_viewdef(c.oid), coalesce(c.reloptions, '{}'),
               obj_description(c.oid, 'pg_class'), pg_get_userbyid(c.relowner)
        FROM (SELECT oid, max(depth) AS depth FROM above WHERE depth > 0 GROUP BY oid) AS found
        JOIN pg_class AS c ON c.oid = found.oid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        ORDER BY found.depth, c.relname
        """,
        (f'{METRICS_SCHEMA}."{name}"',),
    ).fetchall()
    return [
        Dependant(schema, view, _text(kind), body, tuple(options), comment, owner, tuple(grants_on(conn, schema, view)))
        for schema, view, kind, body, options, comment, owner in rows
    ]


def without_barrier(conn: psycopg.Connection, names: Iterable[str]) -> list[str]:
    """Those of some views in `metrics` that leave rows out, which whoever reads the view can make out all the same."""
    rows = conn.execute(
        """
        SELECT viewname, definition FROM pg_views AS v
        WHERE schemaname = %s AND viewname = ANY (%s) AND NOT EXISTS (
            SELECT FROM pg_class AS c CROSS JOIN LATERAL pg_options_to_table(c.reloptions) AS o
            WHERE c.oid = format('%%I.%%I', schemaname, viewname)::regclass
              AND o.option_name = 'security_barrier' AND coalesce(o.option_value, 'true')::boolean)
        ORDER BY 1
        """,
        (METRICS_SCHEMA, list(names)),
    ).fetchall()
    return [str(name) for name, definition in rows if _HIDES.search(definition)]


def body_of(options: Iterable[str], select: str) -> sql.Composable:
    """What follows a view's name; options are as the catalog has them."""
    given = ", ".join(options)
    return sql.SQL(f"{f'WITH ({given}) ' if given else ''}AS {select}")


def recreate(conn: psycopg.Connection, one: Dependant) -> None:
    """Makes a view again as it was, in the caller's transaction.

    Raises:
        BuildError: it uses a column that is gone, or may not be given back to its owner.
    """
    view = sql.Identifier(one.schema, one.name)
    try:
        conn.execute(sql.SQL("CREATE VIEW {} {}").format(view, body_of(one.options, one.definition)))
    except psycopg.errors.UndefinedColumn as error:
        raise BuildError(
            f"{one.schema}.{one.name} uses a column that goes: {error.diag.message_primary}",
            remedy=without_column(one),
        ) from error
    conn.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(one.comment)))
    grant(conn, one.schema, one.name, list(one.grants))
    if conn.execute("SELECT current_user::text").fetchone() != (one.owner,):
        give_back(conn, one.schema, one.name, one.owner)


def without_column(one: Dependant) -> str:
    """What to do about a view that uses a column that goes."""
    if one.foreign:
        return f"Change it first, or DROP VIEW {one.schema}.{one.name} and make it again after the switch."
    return f"Write it without that column into {one.name}.sql in sql/views: `refold deploy` switches both at once."


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
