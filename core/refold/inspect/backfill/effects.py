"""The effect of a backfill on each metric, told before any of its events counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import psycopg

from refold.engine.apply.copy_rows import write_rows
from refold.engine.apply.decoding import decoded
from refold.engine.reconcile.audit import parameters_of
from refold.errors import BuildError, DefinitionError
from refold.inspect.lineage.cost import Bound, estimate
from refold.model.backfill.effect import (
    EFFECT,
    TOUCHED,
    Arriving,
    added,
    arriving_in,
    arriving_in_the_log,
    effect,
    shown,
)
from refold.model.projection.failure import FunctionFailed
from refold.model.projection.transform import Transform
from refold.model.sql_text import EVERYTHING, ident
from refold.model.upkeep.transform import applied_rows
from refold.postgres.rows import exact
from refold.prose import counted
from refold.store.builds.build import Build, live_builds
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.graph import by_depth
from refold.store.file_backfills import FileBackfill

SAMPLES = 20
"""Most keys of a metric whose rows are shown."""
CALL_S = 100e-6
"""Seconds that a transform takes for an event, about."""
TOGETHER = 500
"""Rows that a transform makes between two writes."""
_NUMBERS = {
    **dict.fromkeys(("int2", "int4", "int8", "numeric"), "{}::numeric"),
    # The cast of a float rounds to 6 or 15 digits.
    **dict.fromkeys(("float4", "float8"), "{}::text::numeric"),
}
"""Types of numbers, and the SQL that makes a numeric of one, exactly."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a backfill would change in a metric.

    Args:
        metric: the metric.
        told: whether that is known.
        because: why it is not; or what more there is to say.
        added: rows that it will have more.
        removed: rows that it will have no more.
        changed: rows that will change.
        sums: the change of the sum of each column of numbers that is no key, where it changes.
        samples: rows before and after, by key.
    """

    metric: str
    told: bool = True
    because: str | None = None
    added: int = 0
    removed: int = 0
    changed: int = 0
    sums: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Sequence[Any]]] = ()


def effects(conn: psycopg.Connection, compiler: Compiler, backfill: FileBackfill, bound: Bound) -> Iterator[Effect]:
    """Yield the effect on each live metric, streams before their readers.

    Args:
        conn: the caller's snapshot, in which the temporary table `ANSWERS` was made.
        compiler: knows the transforms of this machine.
        backfill: the backfill.
        bound: what may be read for a metric.
    """
    arriving: dict[int | None, Arriving] = {None: arriving_in_the_log(backfill.staging)}
    untold: dict[int | None, str] = {}
    for build in by_depth(conn, live_builds(conn)):
        try:
            if build.upstream_id in untold:
                raise _Untold(f"it reads {untold[build.upstream_id]}, of which it is not known")
            with conn.transaction():
                yield _effect(conn, compiler.of(conn, build), build, arriving, bound, backfill)
        except (_Untold, BuildError, DefinitionError) as error:
            untold[build.build_id] = build.projection
            yield Effect(build.projection, told=False, because=str(error))
        except psycopg.errors.QueryCanceled:
            untold[build.build_id] = build.projection
            yield Effect(build.projection, told=False, because=f"it takes longer than {bound.timeout_s:.0f} s")
        except psycopg.Error as error:
            if conn.closed or conn.broken:
                raise
            untold[build.build_id] = build.projection
            message = error.diag.message_primary or str(error)
            yield Effect(build.projection, told=False, because=f"its query fails with the staged events: {message}")


class _Untold(Exception):
    """The effect on a metric cannot be told, or would cost too much."""


def _effect(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    build: Build,
    arriving: dict[int | None, Arriving],
    bound: Bound,
    backfill: FileBackfill,
) -> Effect:
    conn.execute("SELECT set_config('statement_timeout', %s, true)", (f"{bound.timeout_s * 1000:.0f}ms",))
    coming = arriving[compiled.upstream_id]
    if compiled.plan.event_grain:
        # Readers find it by its name only if it could be made.
        made = arriving_in(build.build_id)
        if compiled.transform is not None:
            _refuse(CALL_S * backfill.total, backfill.total, bound, backfill)
            failed = _recompute(conn, compiled, compiled.transform, coming, made)
        else:
            failed = None
            _execute(
                conn,
                f"CREATE TEMPORARY TABLE arriving_{build.build_id} ON COMMIT DROP AS\n"
                f"{added(compiled.plan, coming, build.table_name)}",
                {},
            )
        conn.execute(f"ANALYZE {made.table}".encode())
        arriving[build.build_id] = made
        relation = compiled.statements.relations[0]
        columns = ", ".join(map(ident, relation.columns))
        rows = shown(compiled.statements.view, relation, f"SELECT {columns} FROM {made.table}")
        found = _summary(
            conn, build.projection, f"SELECT 'after' AS side__, * FROM (\n{rows}\n) AS added", ("event_id",)
        )
        return replace(found, because=failed)
    sql = effect(compiled.plan, compiled.stream, coming, build.table_name)
    parameters = parameters_of(conn, build)
    conn.execute(b"DROP TABLE IF EXISTS pg_temp.touched")
    _execute(conn, f"CREATE TEMPORARY TABLE touched ON COMMIT DROP AS\n{sql.touched}", {})
    conn.execute(f"ANALYZE {TOUCHED}".encode())
    cost = estimate(conn, [sql.differences], parameters, compiled.stream.table)
    _refuse(cost.seconds, cost.events, bound, backfill)
    return _summary(conn, build.projection, sql.differences, [part.name for part in compiled.plan.key], parameters)


def _refuse(seconds: float, events: int, bound: Bound, backfill: FileBackfill) -> None:
    if seconds > bound.ask_s and not bound.agreed:
        raise _Untold(
            f"it reads about {counted(events, 'event')} for about {seconds:,.0f} s:"
            f" `refold backfill check {backfill.name} --yes` does"
        )


def _recompute(
    conn: psycopg.Connection, compiled: CompiledBuild, transform: Transform, coming: Arriving, made: Arriving
) -> str | None:
    """Store the rows that a transform makes of staged events; say how many events it fails for."""
    relation = compiled.statements.relations[0]
    name = made.table.removeprefix("pg_temp.")
    conn.execute(f"CREATE TEMPORARY TABLE {name} (LIKE {relation.table}) ON COMMIT DROP".encode())
    query = applied_rows(transform, coming, since=False, condition=EVERYTHING)
    failures: list[str] = []

    def rows(page: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
        for one in page:
            try:
                yield from list(transform.rows([one]))
            except FunctionFailed as error:
                failures.append(str(error))

    columns = ", ".join(map(ident, relation.columns))
    with closing(decoded(conn, query, {}, portion=TOGETHER)) as events:
        while page := list(islice(events, TOGETHER)):
            write_rows(conn, f"COPY {made.table} ({columns}) FROM STDIN", list(rows(page)))
    if not failures:
        return None
    return f"{counted(len(failures), 'event')} would become dead letters: {failures[0]}"


def _summary(
    conn: psycopg.Connection,
    metric: str,
    differences: str,
    keys: Sequence[str],
    parameters: Mapping[str, str] | None = None,
) -> Effect:
    """Return the effect from the rows that only one side has."""
    conn.execute(b"DROP TABLE IF EXISTS pg_temp.effect")
    _execute(conn, f"CREATE TEMPORARY TABLE effect ON COMMIT DROP AS\n{differences}", parameters or {})
    # Never prepared: each metric has a table of this name, with other columns.
    with conn.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {EFFECT} LIMIT 0".encode(), prepare=False)
        assert cursor.description is not None
        types = {column.name: conn.adapters.types.get(column.type_code) for column in cursor.description}
    columns = [name for name in types if name not in ("side__", "key__")]
    numbers = {
        name: _NUMBERS[known.name].format(ident(name))
        for name in columns
        if name not in keys and (known := types[name]) is not None and known.name in _NUMBERS
    }
    sums = "".join(f", sum(CASE side__ WHEN 'after' THEN {one} ELSE -({one}) END)" for one in numbers.values())
    rows = conn.execute(
        f"""
        SELECT coalesce(sum(greatest(after - before, 0)), 0)::bigint,
               coalesce(sum(greatest(before - after, 0)), 0)::bigint, coalesce(sum(least(before, after)), 0)::bigint
        FROM (
            SELECT count(*) FILTER (WHERE side__ = 'after') AS after,
                   count(*) FILTER (WHERE side__ = 'before') AS before
            FROM {EFFECT} GROUP BY key__
        ) AS by_key
        """.encode()
    ).fetchone()
    totals = conn.execute(f"SELECT count(*){sums} FROM {EFFECT}".encode()).fetchone()
    assert rows is not None and totals is not None
    shown_columns = ", ".join(f"e.{ident(name)}" for name in columns)
    samples = (
        exact(conn.cursor())
        .execute(
            f"""
        SELECT coalesce(json_agg(row) FILTER (WHERE side__ = 'before'), '[]'),
               coalesce(json_agg(row) FILTER (WHERE side__ = 'after'), '[]')
        FROM (
            SELECT side__, key__, row_to_json((SELECT r FROM (SELECT {shown_columns}) AS r)) AS row FROM {EFFECT} AS e
            WHERE key__ IN (SELECT DISTINCT key__ FROM {EFFECT} LIMIT {SAMPLES})
        ) AS chosen
        GROUP BY key__ ORDER BY min(row::text)
        """.encode()
        )
        .fetchall()
    )
    return Effect(
        metric,
        added=rows[0],
        removed=rows[1],
        changed=rows[2],
        sums={name: value for name, value in zip(numbers, totals[1:], strict=True) if value},
        samples=[{"before": before, "after": after} for before, after in samples],
    )


def _execute(conn: psycopg.Connection, query: str, parameters: Mapping[str, str]) -> None:
    """Run a statement that takes no parameters on the server."""
    with psycopg.ClientCursor(conn) as cursor:
        cursor.execute(query.encode(), dict(parameters))
