"""Following the columns of metrics that projections name in a comment `-- watch:`."""

from __future__ import annotations

from collections import defaultdict
from datetime import date

import psycopg

from refold.model.projection.watch import Watched, watched
from refold.model.sql_text import ident, literal
from refold.model.stream.slices import day_unit
from refold.store import series as store
from refold.store.builds.build import live_builds
from refold.store.builds.compiled import Compiler
from refold.store.series import KEPT, Kind


def follow(conn: psycopg.Connection, compiler: Compiler, day: date) -> None:
    """Read the values of a day of the columns that projections name; of a new series, those of the days before, too."""
    before = {one.name for one in store.every(conn) if one.kind == "metric"}
    for build in live_builds(conn):
        if build.language != "sql" or "watch:" not in build.definition:
            continue
        compiled = compiler.of(conn, build)
        plan = compiled.plan
        columns, _ = watched(build.definition, plan, [part for part in plan.key if day_unit(part.sql) == "1 day"])
        for column in columns:
            since = (
                day
                if f"{build.projection}.{column.column}" in {name.partition(": ")[0] for name in before}
                else day - KEPT
            )
            _follow(conn, build.projection, compiled.statements.view, column, since, day)


def _follow(conn: psycopg.Connection, projection: str, view: str, column: Watched, since: date, day: date) -> None:
    by = "NULL::text" if column.by is None else f"left({ident(column.by)}::text, 200)"
    with conn.transaction():
        rows = conn.execute(
            f"SELECT {ident(column.day)}::date, {by}, sum({ident(column.column)})::double precision"
            # Of the live build itself: what a canary's view shows depends on who reads.
            f" FROM ({literal(view)}) AS live WHERE {ident(column.day)} >= %s AND {ident(column.day)} <= %s"
            " GROUP BY 1, 2".encode(),
            (since, day),
        ).fetchall()
        values: dict[str, dict[date, float]] = defaultdict(dict)
        for at, of, value in rows:
            title = f"{projection}.{column.column}" + ("" if column.by is None else f": {'NULL' if of is None else of}")
            values[title][at] = float(value or 0.0)
        wanted: list[tuple[Kind, str]] = [
            ("metric", one) for one in sorted(values, key=lambda one: -sum(values[one].values()))
        ]
        first = {one: min(days) for one, days in values.items()}
        for kind, name in wanted:
            known = store.add(conn, [(kind, name)], first[name], day=day)
            if (kind, name) in known:
                store.set_days(conn, [(known[kind, name], at, value) for at, value in values[name].items()])
