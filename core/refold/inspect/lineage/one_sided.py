"""The events behind rows that differ between two builds: which of them only one build used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg

from refold.engine.diff.diff import Pair, differing
from refold.engine.diff.result import Diff, OneSided, Sample
from refold.engine.diff.sides import Compared
from refold.inspect.lineage.cost import Bound, estimate, refuse_costly
from refold.inspect.lineage.row_key import made_key
from refold.model.diff.query import AFTER, BEFORE, of
from refold.model.sql_text import ident, in_order, indent, literal, where
from refold.model.stream.page_sql import LOG_TABLE
from refold.model.upkeep import behind
from refold.store.builds.compiled import Compiler

SHOWN = 20
"""Most events of a side that are named for a row."""


def diff_with_events(
    conn: psycopg.Connection,
    compiler: Compiler,
    name: str,
    *,
    number: int | None = None,
    samples: int,
    bound: Bound = Bound(),  # noqa: B008 - frozen
) -> Diff:
    """Return the difference of two builds, with the events behind each sampled row that only one build used.

    Both builds may have used the same events: then their definitions make different rows of them.

    Args:
        conn: acts as one of `EVIDENCE`, in autocommit mode.
        compiler: makes the SQL of builds.
        name: the metric.
        number: the number of the other build; None for the build that waits to go live.
        samples: most rows of each kind to return.
        bound: what the events may cost.

    Raises:
        BuildError: see `refold.engine.diff.diff.diff`.
        Costly: the events would cost more than the bound.
    """
    with differing(conn, compiler, name, number) as pair:
        found = pair.diff(samples)
        statements = [_statement(pair, sample) for sample in found.samples]
        seconds = [estimate(conn, [query], given, pair.before.shown.stream.table) for query, given in statements]
        if seconds:
            refuse_costly(
                replace(seconds[0], seconds=sum(one.seconds for one in seconds), events=sum(o.events for o in seconds)),
                bound,
            )
        # Rows of events have no base: they hold the coordinates of their events.
        based = any(one.build.based and not one.shown.event_grain for one in (pair.before, pair.after))
        told = [
            replace(sample, events=replace(_read(conn, query, given), purged=based))
            for sample, (query, given) in zip(found.samples, statements, strict=True)
        ]
        return replace(found, samples=tuple(told))


def _statement(pair: Pair, sample: Sample) -> tuple[str, dict[str, Any]]:
    """Return the query for the events that only one build used: number of both, side, number, first ids."""
    parts, given = [], dict(pair.parameters)
    for side, one in ((BEFORE, pair.before), (AFTER, pair.after)):
        query, values = _events(pair.conn, side, one, sample.key)
        parts.append(f"{side} AS MATERIALIZED (\n{indent(query)}\n)")
        given |= values
    # LATERAL and OFFSET 0 keep the nested loop, which finds each event in the log by its coordinates.
    query = (
        "WITH " + ",\n".join(parts) + ",\n"
        "one_sided AS (\n"
        f"    SELECT '{BEFORE}' AS side, * FROM (TABLE {BEFORE} EXCEPT TABLE {AFTER}) AS b\n"
        f"    UNION ALL SELECT '{AFTER}', * FROM (TABLE {AFTER} EXCEPT TABLE {BEFORE}) AS a\n"
        "), numbered AS (\n"
        "    SELECT *, count(*) OVER (PARTITION BY side) AS total,\n"
        "           row_number() OVER (PARTITION BY side ORDER BY txid, position) AS at FROM one_sided\n"
        ")\n"
        f"SELECT (SELECT count(*) FROM (TABLE {BEFORE} INTERSECT TABLE {AFTER}) AS both_sides), n.side, n.total,\n"
        "       array_agg(e.event_id ORDER BY n.at)\n"
        "FROM numbered AS n\n"
        "LEFT JOIN LATERAL (\n"
        f"    SELECT event_id FROM {LOG_TABLE} AS l WHERE l.txid = n.txid AND l.position = n.position OFFSET 0\n"
        ") AS e ON true\n"
        f"WHERE n.at <= {SHOWN}\n"
        "GROUP BY n.side, n.total\n"
        "UNION ALL\n"
        f"SELECT (SELECT count(*) FROM (TABLE {BEFORE} INTERSECT TABLE {AFTER}) AS both_sides), NULL, 0, NULL"
    )
    return query, given


def _events(
    conn: psycopg.Connection, side: str, one: Compared, key: Mapping[str, str | None]
) -> tuple[str, dict[str, Any]]:
    """Return the query for the coordinates of the events behind a key in one build, and its parameters."""
    shown = one.shown
    values = [key[column.name] for column in shown.key]
    if shown.event_grain or one.compiled is None:
        return (
            f'SELECT txid, position FROM {shown.table} WHERE event_id = %({side}_row)s::text COLLATE "C"',
            {f"{side}_row": values[0]},
        )
    plan, relation, stream = one.compiled.plan, one.compiled.statements.relations[0], one.compiled.stream
    made = made_key(conn, relation, [column.type for column in shown.key], values)
    _, inside = behind.of_key(plan, stream, relation, made.slice)
    inside += f"\n  AND {in_order(inside, made.of_stream(relation))}"
    own = None if plan.where is None else f"({literal(plan.where)})"
    carried = ", ".join(["txid", "position", *map(ident, plan.reads)])
    # OFFSET 0: the projection's own condition is evaluated for events of the key alone.
    query = (
        f"SELECT DISTINCT txid, position FROM (\n    SELECT {carried} FROM {stream.table}\n    WHERE {inside}\n"
        f"    OFFSET 0\n) AS read{where(own)}"
    )
    return of(side, query), {f"{side}_{name}": value for name, value in made.parameters.items()}


def _read(conn: psycopg.Connection, query: str, given: Mapping[str, Any]) -> OneSided:
    both, sides = 0, {BEFORE: (0, ()), AFTER: (0, ())}
    for shared, side, total, ids in conn.execute(query.encode(), given).fetchall():
        both = int(shared)
        if side is not None:
            sides[side] = (int(total), tuple(ids))
    return OneSided(both, sides[BEFORE][0], sides[AFTER][0], sides[BEFORE][1], sides[AFTER][1])
