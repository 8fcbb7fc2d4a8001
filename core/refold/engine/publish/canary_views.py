"""The views of a canary: `metrics.NAME` by reader, and `metrics_canary.NAME` with the candidate.

`refold.on_canary` decides for each statement whether it reads the candidate; what it does not read it does not touch.
The function answers no as soon as the canary has ended, whatever the view looks like. So a view that is still in this
form shows the live build, and is put right by the next check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from refold.engine.diff.sides import compared
from refold.engine.publish.views import BARRIER, METRICS_SCHEMA, body_of
from refold.store import canaries
from refold.store.builds.build import Build, by_id, find
from refold.store.builds.compiled import Compiler
from refold.store.canaries import CanaryBuild

CANARY_SCHEMA = "metrics_canary"


@dataclass(frozen=True, slots=True)
class Body:
    """What a view selects, and whether it hides rows of a table."""

    select: str
    hides: bool

    def statement(self) -> sql.Composable:
        """Return the part of CREATE VIEW after the name."""
        return body_of([BARRIER] if self.hides else [], self.select)


def body(conn: psycopg.Connection, compiler: Compiler, build: Build, columns: Sequence[str] = ()) -> Body:
    """Return the view of a build alone.

    Args:
        conn: acts as refold_worker.
        compiler: makes the SQL of builds.
        build: the build.
        columns: the columns that a transform shows, if its code need not be here.
    """
    if build.language == "sql" or not columns:
        statements = compiler.of(conn, build).statements
        return Body(statements.view, statements.view_hides)
    selected = sql.SQL(", ").join(map(sql.Identifier, columns))
    table = sql.Identifier("refold_builds", build.table_name)
    return Body(sql.SQL("SELECT {} FROM {}").format(selected, table).as_string(conn), False)


def by_reader(conn: psycopg.Connection, compiler: Compiler, live: Build, candidate: Build) -> Body:
    """Return the view that shows each reader either the live build or the candidate.

    A constant tells both apart, not a condition in each part: so the planner looks into the parts, and a query with
    ORDER BY and LIMIT reads as few rows as from a table.
    """
    name = sql.Literal(live.projection).as_string(conn)
    # Both have the columns that the view has.
    columns = _columns(conn, METRICS_SCHEMA, live.projection)
    one, other = (body(conn, compiler, build, columns) for build in (live, candidate))
    mark = "candidate"
    while mark in columns:
        mark += "_"
    shown = sql.SQL(", ").join(map(sql.Identifier, columns)).as_string(conn)
    return Body(
        f"SELECT {shown}\nFROM (\n"
        f"    SELECT *, false AS {mark} FROM ({one.select}) AS live\n"
        f"    UNION ALL\n"
        f"    SELECT *, true FROM ({other.select}) AS other\n"
        f") AS either\nWHERE {mark} = refold.on_canary({name})",
        one.hides or other.hides,
    )


def exposed(conn: psycopg.Connection, projection: str) -> CanaryBuild | None:
    """Return the candidate that `metrics.NAME` shows to some readers, if the view has that form."""
    return next((one for one in canaries.shown(conn, projection) if one.exposed), None)


def same_columns(conn: psycopg.Connection, compiler: Compiler, live: Build, candidate: Build) -> bool:
    """Return whether both builds show the same columns in the same order, so that one view can show either."""
    names = _columns(conn, METRICS_SCHEMA, live.projection)
    if names != [column.name for column in compiler.of(conn, candidate).plan.columns]:
        return False
    one, other = (compared(conn, compiler, build).shown.types for build in (live, candidate))
    return all(one.get(name) == other.get(name) for name in names)


def show(conn: psycopg.Connection, compiler: Compiler, canary_id: int, candidate: Build) -> bool:
    """Create the views of a candidate, in the caller's transaction; return whether `metrics.NAME` shows it.

    Args:
        conn: acts as refold_worker; has a short lock_timeout and holds the locks of both builds.
        compiler: makes the SQL of builds.
        canary_id: the canary, which is inserted already.
        candidate: the candidate.
    """
    live = _live(conn, candidate.projection)
    exposes = live is not None and same_columns(conn, compiler, live, candidate)
    own = sql.Identifier(CANARY_SCHEMA, candidate.projection)
    conn.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(own))
    conn.execute(sql.SQL("CREATE VIEW {} {}").format(own, body(conn, compiler, candidate).statement()))
    conn.execute(sql.SQL("GRANT SELECT ON {} TO refold_analyst, refold_inspector").format(own))
    if live is not None and exposes:
        replace(conn, live.projection, by_reader(conn, compiler, live, candidate))
    canaries.add_build(
        conn,
        canary_id,
        candidate.projection,
        candidate.build_id,
        exposed=exposes,
        dead_letters=candidate.dead_letters,
    )
    return exposes


def replace(conn: psycopg.Connection, name: str, of: Body) -> None:
    """Replace the view of a metric by one with the same columns; comments, privileges and readers stay."""
    view = sql.Identifier(METRICS_SCHEMA, name)
    conn.execute(sql.SQL("CREATE OR REPLACE VIEW {} {}").format(view, of.statement()))


def hide(conn: psycopg.Connection, name: str) -> None:
    """Drop the view of a metric's candidate, and forget that `metrics.NAME` shows it; in the caller's transaction.

    The caller makes or drops `metrics.NAME` in the same transaction.
    """
    conn.execute(sql.SQL("DROP VIEW IF EXISTS {} CASCADE").format(sql.Identifier(CANARY_SCHEMA, name)))
    canaries.hidden(conn, name)


def alone(conn: psycopg.Connection, compiler: Compiler, name: str) -> None:
    """Let `metrics.NAME` show the live build to every reader again, in the caller's transaction."""
    standing = exposed(conn, name)
    live = _live(conn, name)
    if standing is not None and live is not None and _columns(conn, METRICS_SCHEMA, name):
        replace(conn, name, body(conn, compiler, live, _columns(conn, METRICS_SCHEMA, name)))
    hide(conn, name)


def superseded(conn: psycopg.Connection, name: str, build: Build | None) -> None:
    """End the canary of a metric that is switched or dropped, in the transaction that does so.

    Args:
        conn: the caller's transaction.
        name: the metric.
        build: the build that goes live; None if the metric is dropped.
    """
    canary = canaries.of(conn, name)
    if canary is not None:
        promoted = build is not None and any(one.build_id == build.build_id for one in canary.builds)
        because = None if promoted else f"{name} was {'dropped' if build is None else 'switched to another build'}"
        canaries.end(conn, canary.canary_id, "promoted" if promoted else "superseded", because)
    if canaries.shown(conn, name):
        hide(conn, name)


def left_over(conn: psycopg.Connection) -> list[str]:
    """Return the metrics whose views still have the form of a canary that has ended."""
    opened = {one.canary_id for one in canaries.open_canaries(conn)}
    return [
        one.projection
        for one in canaries.shown(conn)
        if one.canary_id not in opened or by_id(conn, one.build_id).state != "building"
    ]


def _live(conn: psycopg.Connection, name: str) -> Build | None:
    found = find(conn, "b.state = 'live' AND b.projection = %s", name)
    return found[0] if found else None


def _columns(conn: psycopg.Connection, schema: str, name: str) -> list[str]:
    rows = conn.execute(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum",
        (sql.Identifier(schema, name).as_string(conn),),
    ).fetchall()
    return [str(column) for (column,) in rows]
