"""Reading what a sink delivers: rows of a metric by their keys, or by slices, each with its version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from refold.errors import BuildError
from refold.model.projection.plan import Plan
from refold.model.sink.sink_file import Grain
from refold.model.sql_text import EVERYTHING, ident, indent, literal, quoted
from refold.model.stream.slices import EVERY_SLICE, Range, Slicing
from refold.model.upkeep.statements import Relation
from refold.sinks.receiver import Change, Column, Shape
from refold.store.builds.build import Build
from refold.store.builds.compiled import CompiledBuild

TOGETHER = 5_000
"""Keys that one statement looks up, and rows that one fetch of a slice returns."""


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a live build as its analysts see them.

    Args:
        shape: their form.
        relation: the table behind the view.
        view: the view's SELECT.
        unseen: columns of the key that the view lacks: the id of a row that a transform returns in a list.
    """

    shape: Shape
    relation: Relation
    view: str
    unseen: tuple[str, ...] = ()

    @property
    def slicing(self) -> Slicing:
        return self.relation.slicing

    def of_keys(self, nulls: Sequence[str], *, json: bool) -> str:
        """Return the query for the rows of the keys in the parameter `keys`, a JSON array of slice and key.

        The slice of a row is the one that it is in now: a healed row of a stream may have moved.

        Args:
            nulls: the columns of the key that are NULL in all of these keys, so that an index serves the others.
            json: whether the rows are wanted as JSON, too.
        """
        on = " AND ".join(
            f"v.{ident(name)} IS NULL" if name in nulls else f"v.{ident(name)} = given.{ident(name)}"
            for name in self.shape.key
        )
        parts = ", ".join(f"(k.own).{ident(name)}" for name in self.shape.key)
        seen = indent(literal(self.view_of(EVERYTHING)), 8)
        return (
            f"SELECT given.key__::text, coalesce(v.slice__, given.slice__), v.here__ IS NOT NULL,\n"
            f"       {self._texts('v', json=json)}\n"
            f"FROM (\n"
            f"    SELECT key__, slice__, {parts} FROM (\n"
            f"        SELECT pair -> 1 AS key__, (pair -> 0)::integer AS slice__,\n"
            f"               jsonb_populate_record(NULL::{self.relation.table}, pair -> 1) AS own\n"
            f"        FROM jsonb_array_elements(%(keys)s::jsonb) AS pair\n"
            f"        OFFSET 0\n"
            f"    ) AS k\n"
            f") AS given\n"
            f"LEFT JOIN (\n    SELECT true AS here__, * FROM (\n{seen}\n    ) AS seen\n"
            f") AS v ON {on}"
        )

    def of_slices(self, ranges: Sequence[Range], *, json: bool) -> str:
        """Return the query for the rows of some slices, in the order of their keys' texts."""
        pairs = ", ".join(f"{quoted(name)}, v.{ident(name)}" for name in self.shape.key)
        return (
            f"SELECT jsonb_build_object({pairs})::text, slice__, true, {self._texts('v', json=json)}\n"
            f"FROM (\n{indent(self.view_of(self.scope(ranges)))}\n) AS v\nORDER BY 2, 1"
        )

    def scope(self, ranges: Sequence[Range]) -> str:
        """Return the condition on rows of the table that they are in some slices."""
        return EVERYTHING if ranges == EVERY_SLICE else self.slicing.scope(ranges)[1]

    def view_of(self, scope: str) -> str:
        """Return the view's SELECT with the slice of each row, over the rows of the table in a scope."""
        start = f"FROM {self.relation.table}"
        head, found, tail = self.view.rpartition(start)
        assert found, self.view
        narrowed = f"FROM (SELECT * FROM {self.relation.table} WHERE {scope}) AS narrowed"
        own = "".join(f", {ident(name)}" for name in self.unseen)
        return f"{head.rstrip()}{own}, {self.slicing.row} AS slice__ {narrowed}{tail}"

    def _texts(self, of: str, *, json: bool) -> str:
        texts = [f"{of}.{ident(column.name)}::text" for column in self.shape.columns]
        pairs = ", ".join(f"{quoted(column.name)}, {of}.{ident(column.name)}" for column in self.shape.columns)
        # A function takes 100 arguments.
        whole = (
            f"jsonb_build_object({pairs})"
            if len(self.shape.columns) <= 50
            else f"(to_jsonb({of}) - '{{slice__,here__}}'::text[])"
        )
        return ", ".join([*texts, f"{whole}::text" if json else "NULL"])


def source(conn: psycopg.Connection, sink: str, grain: Grain, build: Build, compiled: CompiledBuild) -> Source:
    """Return what a sink delivers of a build.

    Raises:
        BuildError: the rows of the build cannot be told apart by a receiver, or have no order.
    """
    relation = compiled.statements.relations[0]
    columns = tuple(
        Column(name, kind) for name, kind in conn.execute(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a"
            " WHERE a.attrelid = to_regclass('metrics.' || quote_ident(%s)) AND a.attnum > 0 AND NOT a.attisdropped"
            " ORDER BY a.attnum",
            (build.projection,),
        ).fetchall()
    )  # fmt: skip
    if not columns:
        raise BuildError(
            f"metrics.{build.projection} is missing",
            remedy=f"Show it again: `refold deploy`, or rebuild {build.projection}.",
        )
    refuse_unfit(compiled.plan, grain)
    shown = {column.name for column in columns}
    unseen = tuple(name for name in relation.key if name not in shown)
    columns = (*(Column(name, "text") for name in unseen), *columns)
    return Source(Shape(sink, build.projection, columns, relation.key), relation, compiled.statements.view, unseen)


def refuse_unfit(plan: Plan, grain: Grain) -> None:
    """Raise BuildError if the rows of a metric cannot be told apart by what the receiver gets, or have no order."""
    if grain == "events" and not plan.event_grain:
        raise BuildError(
            f"{plan.name} is no stream: its rows change, so none can be given once",
            remedy='Write grain = "rows"; or deliver a transform, or a query with a row for each event.',
        )
    if not plan.unique:
        raise BuildError(
            f"{plan.name} has several rows for a key ({', '.join(part.name for part in plan.key)}), and a"
            " receiver could not tell which one changed",
            remedy="Write the query so that a GROUP BY makes each row, or deliver the stream that it reads.",
        )


def changes_of(
    conn: psycopg.Connection, source: Source, keys: Sequence[tuple[int, str]], *, json: bool
) -> Iterator[Change]:
    """Yield the rows of some keys as they are now, and for each other key that its row is gone.

    A key may come with two slices, because its row has moved: the row is yielded once, with the slice that it is in.

    Args:
        conn: a transaction in REPEATABLE READ.
        source: what the sink delivers.
        keys: slice, and key as the text of a JSON object.
        json: whether the receiver needs JSON.
    """
    for at in range(0, len(keys), TOGETHER):
        for nulls, part in _by_nulls(conn, source, keys[at : at + TOGETHER]).items():
            given = "[" + ",".join(f"[{slice_},{key}]" for slice_, key in part) + "]"
            query = source.of_keys(nulls, json=json).encode()
            yield from map(_change, conn.execute(query, {"keys": given}, prepare=True).fetchall())


def changes_of_slice(conn: psycopg.Connection, source: Source, slice_: int, *, json: bool) -> Iterator[Change]:
    """Yield the rows of a slice, in the order of their keys."""
    query = source.of_slices(((slice_, slice_),), json=json)
    with conn.cursor(name="slice") as cursor:
        cursor.execute(query.encode())
        while rows := cursor.fetchmany(TOGETHER):
            yield from map(_change, rows)


def _change(row: tuple[Any, ...]) -> Change:
    if not row[2]:
        return Change(row[0], row[1], None)
    return Change(row[0], row[1], row[3:-1], row[-1] or "")


def _by_nulls(
    conn: psycopg.Connection, source: Source, keys: Sequence[tuple[int, str]]
) -> Mapping[tuple[str, ...], list[tuple[int, str]]]:
    """Return keys by those of their columns that are NULL."""
    suspects = [at for at, (_, key) in enumerate(keys) if ": null" in key]
    found: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    nulls: dict[int, tuple[str, ...]] = {}
    if suspects:
        rows = conn.execute(
            "SELECT ARRAY(SELECT n FROM unnest(%s::text[]) AS n WHERE k -> n = 'null') FROM"
            " jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS e (k, at) ORDER BY at",
            (list(source.shape.key), "[" + ",".join(keys[at][1] for at in suspects) + "]"),
        ).fetchall()
        nulls = {at: tuple(row[0]) for at, row in zip(suspects, rows, strict=True)}
    for at, key in enumerate(keys):
        found.setdefault(nulls.get(at, ()), []).append(key)
    return found


def build_checksums(
    conn: psycopg.Connection, build_id: int, slices: Iterable[int] | None = None
) -> dict[int, tuple[int, int]]:
    """Return the kept checksums of a build's rows by slice, as of the caller's snapshot: rows and hash.

    Args:
        conn: a transaction in REPEATABLE READ.
        build_id: the build.
        slices: the slices; None for all.
    """
    rows = conn.execute(
        """
        SELECT slice, sum(rows)::bigint, sum(hash) FROM (
            SELECT slice, rows, hash FROM refold.checksums
            WHERE build_id = %(build)s AND relation = 0 AND (%(slices)s::integer[] IS NULL OR slice = ANY (%(slices)s))
            UNION ALL
            SELECT slice, rows, hash FROM refold.checksum_changes
            WHERE build_id = %(build)s AND relation = 0 AND (%(slices)s::integer[] IS NULL OR slice = ANY (%(slices)s))
        ) AS kept GROUP BY slice HAVING sum(rows) <> 0 OR sum(hash) <> 0
        """,
        {"build": build_id, "slices": None if slices is None else list(slices)},
    ).fetchall()
    return {int(one): (int(count), int(hash_)) for one, count, hash_ in rows}
