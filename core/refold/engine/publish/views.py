"""The stable views in schema `metrics`, which analysts read while the tables behind them are switched."""

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
"""Option of a view that hides rows. Without it Postgres may evaluate an analyst's condition first, and a cheap function
in that condition could print the hidden rows."""
_HIDES = re.compile(r"(?<!FILTER \()\b(WHERE|HAVING)\b")


@dataclass(frozen=True, slots=True)
class Dependant:
    """A view that reads a metric, with everything that is needed to recreate it."""

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
        """Return whether the view is outside the schema `metrics`, and so not refold's."""
        return self.schema != METRICS_SCHEMA


def switch_view(
    conn: psycopg.Connection,
    name: str,
    compiled: CompiledBuild,
    *,
    recreate_foreign: bool = False,
    dropped: list[Dependant] | None = None,
) -> None:
    """Point the view of a metric at a build, in the caller's transaction.

    Args:
        conn: acts as refold_worker; has a short lock_timeout.
        name: the metric.
        compiled: the build's SQL.
        recreate_foreign: if columns change, also drop and recreate views outside `metrics`.
        dropped: receives the dependent views that were dropped, for the caller to recreate; by default they are
            recreated at once, unchanged.

    Raises:
        BuildError: columns change, and views outside `metrics` depend on them.
        psycopg.errors.LockNotAvailable: a session holds the view; try the whole promote again.
    """
    view = sql.Identifier(METRICS_SCHEMA, name)
    body = body_of([BARRIER] if compiled.statements.view_hides else [], compiled.statements.view)
    try:
        with conn.transaction():
            conn.execute(sql.SQL("CREATE OR REPLACE VIEW {} {}").format(view, body))
    except psycopg.errors.InvalidTableDefinition:
        # Columns were removed, or changed type or order: dependent views must be dropped and recreated.
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
    conn.execute(sql.SQL("GRANT SELECT ON {} TO refold_analyst, refold_inspector").format(view))


def refuse_others(name: str, dependants: Sequence[Dependant], *, recreate_foreign: bool) -> None:
    """Refuse to drop a view with changed columns if refold may not recreate its dependent views.

    Raises:
        BuildError: materialized views depend on it; or views outside `metrics` do, and `recreate_foreign` is not set.
    """
    foreign = [f"{one.schema}.{one.name}" for one in dependants if one.foreign]
    if any(one.kind != "v" for one in dependants) or (foreign and not recreate_foreign):
        names = ", ".join(foreign or [one.name for one in dependants if one.kind != "v"])
        raise BuildError(
            f"the columns of metrics.{name} change, and {names} depends on it",
            remedy="Drop it first, or let refold recreate the views: --recreate-views.",
        ) from None


def drop_view(conn: psycopg.Connection, name: str) -> None:
    """Drop the view of a metric that is no longer live; fail if other views depend on it."""
    conn.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(sql.Identifier(METRICS_SCHEMA, name)))


def stands(conn: psycopg.Connection, name: str) -> bool:
    """Return whether a relation of this name exists in `metrics`."""
    view = sql.Identifier(METRICS_SCHEMA, name).as_string(conn)
    return conn.execute("SELECT to_regclass(%s) IS NOT NULL", (view,)).fetchone() == (True,)


def once_let_go(conn: psycopg.Connection, seconds: float, work: Callable[[], T], *, held: str, then: str) -> T:
    """Run a transaction that needs locks on views, and try again while other sessions hold them.

    Args:
        conn: in autocommit mode.
        seconds: longest time to try.
        work: function that runs in the transaction; it may run several times.
        held: the error message if a session still holds a view.
        then: the command for the remedy, to run after that session has ended.

    Raises:
        BuildError: a session still holds a view after `seconds`.
    """
    try:
        return in_short_attempts(conn, seconds, work)
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            held, remedy=f"End its transaction (see pg_stat_activity for 'idle in transaction'), then {then}."
        ) from error


def dependants_of(conn: psycopg.Connection, name: str) -> list[Dependant]:
    """Return the views that read a metric, at any depth, nearest first."""
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
    """Return the views in `metrics` that filter rows without a security barrier: a reader can find the hidden rows."""
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
    """Return the part of CREATE VIEW after the name; options are as the catalog has them."""
    given = ", ".join(options)
    return sql.SQL(f"{f'WITH ({given}) ' if given else ''}AS {select}")


def recreate(conn: psycopg.Connection, one: Dependant) -> None:
    """Recreate a view unchanged, in the caller's transaction.

    Raises:
        BuildError: the view uses a column that no longer exists, or refold may not give it back to its owner.
    """
    view = sql.Identifier(one.schema, one.name)
    try:
        conn.execute(sql.SQL("CREATE VIEW {} {}").format(view, body_of(one.options, one.definition)))
    except psycopg.errors.UndefinedColumn as error:
        raise BuildError(
            f"{one.schema}.{one.name} uses a removed column: {error.diag.message_primary}",
            remedy=without_column(one),
        ) from error
    conn.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(one.comment)))
    grant(conn, one.schema, one.name, list(one.grants))
    if conn.execute("SELECT current_user::text").fetchone() != (one.owner,):
        give_back(conn, one.schema, one.name, one.owner)


def without_column(one: Dependant) -> str:
    """Return the remedy for a view that uses a column which the new version lacks."""
    if one.foreign:
        return f"Change it first, or DROP VIEW {one.schema}.{one.name} and recreate it after the switch."
    return f"Write it without that column into sql/views/{one.name}.sql: `refold deploy` switches both at once."


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
