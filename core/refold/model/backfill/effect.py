"""SQL for the effect that staged events will have on a metric. Pure text.

An audit compares a table with its query over the events that its cursor has applied. Here the query is evaluated over
these events and the staged ones, for the keys that the staged ones touch, and compared with the same table. Aggregates
that are merged are not read again: they are folded into the rows, as a page would do it.
"""

from __future__ import annotations

from dataclasses import dataclass

from refold.model.projection.plan import LOG_COLUMNS, Plan
from refold.model.sql_text import EVERYTHING, hash_of, ident, indent, literal
from refold.model.stream.page_sql import Stream
from refold.model.upkeep.generate import generate
from refold.model.upkeep.statements import Relation

ANSWERS = "pg_temp.answers"
"""Temporary table of the staged records that are not new, by number."""
TOUCHED = "pg_temp.touched"
"""Temporary table of the hashes of the keys that the staged events touch."""
EFFECT = "pg_temp.effect"
"""Temporary table of the rows that only one side has: `side__`, `key__`, and the columns that analysts see."""


class Arriving(Stream):
    """The rows of a stream that are evaluated, whatever a cursor says."""

    def applied(self) -> str:
        return EVERYTHING


def arriving_in_the_log(staging: str) -> Arriving:
    """Return the staged events that are new, as the log would hold them.

    Args:
        staging: the staging table, as SQL.
    """
    columns = ", ".join(f"s.{ident(column)}" for column in LOG_COLUMNS)
    return Arriving(
        f"(\n    SELECT '0'::xid8 AS txid, s.number AS position, {columns}\n    FROM {staging} AS s\n"
        f"    WHERE NOT EXISTS (SELECT FROM {ANSWERS} AS a WHERE a.number = s.number)\n) AS arriving__",
        ordinal=False,
    )


def arriving_in(build_id: int) -> Arriving:
    """Return the temporary table of the rows that an event-grain build will have of staged events."""
    return Arriving(f"pg_temp.arriving_{build_id}", ordinal=True)


@dataclass(frozen=True, slots=True)
class Effect:
    """The SQL of the effect on a build whose rows are keyed.

    Args:
        touched: the query for the hashes of the keys that staged events touch.
        differences: the query for the rows that only one side has: `side__`, `key__`, and what analysts see.
    """

    touched: str
    differences: str


def effect(plan: Plan, stream: Stream, arriving: Arriving, name: str) -> Effect:
    """Return the SQL of the effect of staged events on a build.

    Args:
        plan: the plan of its projection; its upkeep is neither `facts` nor `transform`.
        stream: the relation that the build reads.
        arriving: the rows that will be added to it.
        name: the build's table, without the schema.
    """
    alone = generate(plan, arriving, name)
    relation = alone.relations[0]
    keys = f"IN (SELECT hash__ FROM {TOUCHED})"
    if alone.folded is not None:
        after = alone.folded(arriving.table)
    else:
        both = generate(plan, Arriving(_both(plan, stream, arriving), stream.ordinal), name).relations[0]
        after = both.expected(f"{both.stream_hash} {keys}", f"{both.hash} {keys}")
    columns = ", ".join(map(ident, relation.columns))
    before = f"SELECT {columns} FROM {relation.table} WHERE {relation.hash} {keys}"
    return Effect(
        f"SELECT DISTINCT {hash_of(relation.key_sql)} AS hash__ FROM {arriving.table} WHERE {relation.guard}",
        f"WITH after AS MATERIALIZED (\n{indent(shown(alone.view, relation, after))}\n),\n"
        f"before AS MATERIALIZED (\n{indent(shown(alone.view, relation, before))}\n)\n"
        "SELECT 'after' AS side__, * FROM (SELECT * FROM after EXCEPT ALL SELECT * FROM before) AS a\n"
        "UNION ALL\n"
        "SELECT 'before' AS side__, * FROM (SELECT * FROM before EXCEPT ALL SELECT * FROM after) AS b",
    )


def added(plan: Plan, arriving: Arriving, name: str) -> str:
    """Return the query for the rows that a build of facts will have of staged events.

    Args:
        plan: the plan of its projection.
        arriving: the rows that will be added to its stream.
        name: the build's table, without the schema.
    """
    return generate(plan, arriving, name).relations[0].expected(EVERYTHING, EVERYTHING)


def shown(view: str, relation: Relation, rows: str) -> str:
    """Return what analysts see of some rows of a build, with the hash of their keys as `key__`.

    Args:
        view: the SELECT of the build's view.
        relation: the table that it selects from.
        rows: a query for rows of this table.
    """
    selected, _, condition = literal(view).rpartition(f" FROM {literal(relation.table)}")
    return f"{selected}, {relation.hash} AS key__\nFROM (\n{indent(rows)}\n) AS rows__{condition}"


def _both(plan: Plan, stream: Stream, arriving: Arriving) -> str:
    """Return the rows that a cursor has applied, and those that will be added."""
    names = dict.fromkeys([*stream.coordinates.split(", "), "event_id", *plan.reads])
    columns = ", ".join(map(ident, names))
    return (
        f"(\n    SELECT {columns} FROM {stream.table}\n    WHERE {stream.applied()}\n"
        f"    UNION ALL\n    SELECT {columns} FROM {arriving.table}\n) AS both__"
    )
