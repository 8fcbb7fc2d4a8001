"""A build as one side of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from refold.engine.diff.result import Side
from refold.model.diff.shape import Output, Shown
from refold.model.projection.plan import Plan
from refold.model.sql_text import ident, literal
from refold.model.stream.slices import by_position
from refold.store.builds.build import Build, by_id
from refold.store.builds.compiled import CompiledBuild, Compiler, columns_of, stream_of

COORDINATES = ("txid", "position", "ordinal")


@dataclass(frozen=True, slots=True)
class Compared:
    """A build, what it shows, and its SQL; None for a transform, whose code need not be here."""

    build: Build
    shown: Shown
    compiled: CompiledBuild | None

    @property
    def side(self) -> Side:
        """Return what a report says of the build."""
        one = self.build
        return Side(one.build_id, one.number, one.state, one.table_name, one.dead_letters)


def compared(conn: psycopg.Connection, compiler: Compiler, build: Build) -> Compared:
    """Return a build as a side of a comparison.

    Args:
        conn: the snapshot in which the build was read.
        compiler: makes the SQL of builds.
        build: the build.
    """
    if build.language == "python":
        return Compared(build, _of_transform(conn, build), None)
    compiled = compiler.of(conn, build)
    plan, relation = compiled.plan, compiled.statements.relations[0]
    shown = outputs(plan)
    kept = [ident(name) for name in relation.columns]
    types = types_of(conn, relation.table, [*kept, *(sql for _, sql in shown)])
    typed = dict(zip(relation.columns, types[: len(kept)], strict=True))
    return Compared(
        build,
        Shown(
            relation.table,
            tuple(Output(name, ident(name), typed[name]) for name in relation.key),
            plan.unique,
            tuple(Output(name, sql, kind) for (name, sql), kind in zip(shown, types[len(kept) :], strict=True)),
            plan.having,
            tuple(typed.items()),
            relation.slicing,
            plan.event_grain,
            compiled.stream,
            tuple(relation.key_sql),
            None if plan.event_grain else plan.where,
        ),
        compiled,
    )


def _of_transform(conn: psycopg.Connection, build: Build) -> Shown:
    table = f"refold_builds.{ident(build.table_name)}"
    names = [*COORDINATES, *columns_of(conn, build)]
    types = types_of(conn, table, [ident(name) for name in names])
    typed = dict(zip(names, types, strict=True))
    upstream = None if build.upstream_id is None else by_id(conn, build.upstream_id)
    return Shown(
        table,
        (Output("event_id", "event_id", typed["event_id"]),),
        True,
        tuple(Output(name, ident(name), kind) for name, kind in typed.items() if name not in COORDINATES),
        None,
        tuple(typed.items()),
        by_position(),
        True,
        stream_of(upstream),
    )


def outputs(plan: Plan) -> list[tuple[str, str]]:
    """Return the columns of the view: name, and SQL over the rows of the table."""
    return [
        (column.name, column.sql if plan.upkeep in ("merge", "members") else ident(column.name))
        for column in plan.columns
    ]


def types_of(conn: psycopg.Connection, table: str, expressions: Sequence[str]) -> list[str]:
    """Return the types of expressions over the rows of a table, as SQL."""
    listed = ", ".join(f"({literal(one)})" for one in expressions)
    result = conn.execute(f"SELECT {listed} FROM {table} LIMIT 0".encode(), {}).pgresult
    assert result is not None
    kinds = [(result.ftype(at), result.fmod(at)) for at in range(result.nfields)]
    rows: list[tuple[Any, ...]] = conn.execute(
        "SELECT format_type(t.oid, t.mod) FROM unnest(%s::oid[], %s::integer[]) WITH ORDINALITY AS t (oid, mod, at)"
        " ORDER BY t.at",
        ([oid for oid, _ in kinds], [mod for _, mod in kinds]),
    ).fetchall()
    return [str(kind) for (kind,) in rows]
