"""The path of events: captures, the log, streams, metrics, analysts' views and sinks, with their columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import psycopg

from refold.engine.lineage.observed import EVENTS, observed
from refold.engine.reconcile.audit import parameters_of
from refold.errors import InputError, RefoldError
from refold.model.lineage.columns import ColumnLineage, Relations, column_lineage
from refold.model.projection.definition import stream_in
from refold.model.projection.plan import LOG, LOG_COLUMNS
from refold.postgres.snapshot import snapshot
from refold.store.builds.build import EVENT_GRAIN, Build, live_builds
from refold.store.builds.compiled import Compiler
from refold.store.builds.graph import by_depth
from refold.suggest import did_you_mean

Kind = Literal["capture", "log", "stream", "metric", "view", "sink"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a node: its name, type and comment."""

    name: str
    type: str
    comment: str | None


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the graph.

    Args:
        name: `events` for the log; otherwise its own name, with its schema for a view outside of `metrics`.
        kind: a stream is a projection with a row per event, whether or not another reads it.
        description: its comment.
        upkeep: how a projection is kept.
        relation: the relation that a reader selects from, with its schema; None for captures and sinks.
        columns: its columns.
        lineage: what is behind its columns; None unless asked for.
    """

    name: str
    kind: Kind
    description: str | None = None
    upkeep: str | None = None
    relation: str | None = None
    columns: tuple[Column, ...] = ()
    lineage: ColumnLineage | None = None

    @property
    def id(self) -> str:
        """Return a name that is unique in the graph: a sink may be named as its metric."""
        return f"{self.kind}:{self.name}" if self.kind in ("capture", "sink") else self.name


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge between the ids of two nodes, in the direction in which events flow."""

    above: str
    below: str


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph, with what flows first coming first."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def around(self, name: str) -> Graph:
        """Return the part of the graph above and below a node.

        Raises:
            InputError: there is no such node.
        """
        known = {node.id: node for node in self.nodes} | {node.name: node for node in self.nodes}
        if name not in known:
            names = [node.name for node in self.nodes]
            raise InputError(
                f"there is no metric, view or sink {name}.{did_you_mean(name, names)}",
                remedy=f"There are: {', '.join(names)}.",
            )
        center = known[name].id
        kept = self._reached({center}, lambda edge: (edge.above, edge.below))
        kept |= self._reached({center}, lambda edge: (edge.below, edge.above))
        return Graph(
            tuple(node for node in self.nodes if node.id in kept),
            tuple(edge for edge in self.edges if edge.above in kept and edge.below in kept),
        )

    def _reached(self, start: set[str], ends: Any) -> set[str]:
        reached, size = set(start), 0
        while len(reached) > size:
            size = len(reached)
            reached |= {there for here, there in map(ends, self.edges) if here in reached}
        return reached

    def as_dict(self) -> dict[str, Any]:
        """Return the graph as a dict for JSON."""
        return {
            "nodes": [asdict(node) | {"id": node.id} for node in self.nodes],
            "edges": [asdict(edge) for edge in self.edges],
        }


def lineage_graph(conn: psycopg.Connection, compiler: Compiler, *, columns: bool = False) -> Graph:
    """Return the graph of what is live.

    Args:
        conn: acts as one of `EVIDENCE`, in autocommit mode.
        compiler: makes the SQL of builds; it has the code of transforms.
        columns: whether to find what is behind each column too. Transforms are run on some events for that.
    """
    with snapshot(conn):
        return _Reader(conn, compiler, columns=columns).graph()


# Analysts' views: those on top of the views of metrics, in any schema.
_VIEWS = """
WITH RECURSIVE below (oid) AS (
    SELECT c.oid FROM pg_class AS c
    WHERE c.relnamespace = 'metrics'::regnamespace AND c.relkind = 'v' AND c.relname = ANY (%(metrics)s)
    UNION
    SELECT r.ev_class
    FROM below
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = below.oid
                       AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite AS r ON r.oid = d.objid
    WHERE r.ev_class <> below.oid
)
SELECT c.oid::bigint, n.nspname::text, c.relname::text, pg_get_viewdef(c.oid), obj_description(c.oid, 'pg_class'),
       ARRAY(SELECT DISTINCT d.refobjid::bigint FROM pg_rewrite AS r
             JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
             WHERE r.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid)
FROM below JOIN pg_class AS c USING (oid) JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm')
ORDER BY c.oid
"""


class _Reader:
    def __init__(self, conn: psycopg.Connection, compiler: Compiler, *, columns: bool) -> None:
        self.conn = conn
        self.compiler = compiler
        self.with_columns = columns
        self.builds = by_depth(conn, live_builds(conn))
        self.known = {build.build_id: build for build in self.builds}
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []

    def graph(self) -> Graph:
        self._captures()
        log = self._columns("refold", LOG)
        self.nodes.append(
            Node(LOG, "log", "The log: every event once.", None, "refold.events",
                 tuple(column for column in log if column.name in LOG_COLUMNS))
        )  # fmt: skip
        for build in self.builds:
            self._projection(build)
        self._views()
        for sink, projection, kind, grain in self.conn.execute(
            "SELECT name, projection, kind, grain FROM refold.sinks ORDER BY name"
        ).fetchall():
            node = Node(sink, "sink", f"{kind}, {grain}")
            self.nodes.append(node)
            self.edges.append(Edge(projection, node.id))
        present = {node.id for node in self.nodes}
        return Graph(tuple(self.nodes), tuple(edge for edge in self.edges if {edge.above, edge.below} <= present))

    def _captures(self) -> None:
        for name, relation in self.conn.execute(
            "SELECT name, table_schema || '.' || table_name FROM refold.captures ORDER BY name"
        ).fetchall():
            node = Node(name, "capture", f"changes of {relation}")
            self.nodes.append(node)
            self.edges.append(Edge(node.id, LOG))

    def _projection(self, build: Build) -> None:
        upstream = None if build.upstream_id is None else self.known[build.upstream_id]
        above = LOG if upstream is None else upstream.projection
        description, comments = self._of_relation("metrics", build.projection)
        node = Node(
            build.projection,
            "stream" if build.upkeep in EVENT_GRAIN else "metric",
            description,
            build.upkeep,
            f"metrics.{build.projection}",
            comments,
        )
        if self.with_columns:
            node = replace(node, lineage=self._lineage(build, upstream, above))
        self.nodes.append(node)
        self.edges.append(Edge(above, node.id))

    def _lineage(self, build: Build, upstream: Build | None, above: str) -> ColumnLineage:
        known = self.compiler.lineages.get((build.build_id, above))
        if known is None:
            known = self._find_lineage(build, upstream, above)
            # A function is observed until it has processed enough events.
            if build.language == "sql" or (known.observed or 0) >= EVENTS:
                self.compiler.lineages[build.build_id, above] = known
        return known

    def _find_lineage(self, build: Build, upstream: Build | None, above: str) -> ColumnLineage:
        if build.language == "python":
            try:
                compiled = self.compiler.of(self.conn, build)
            except RefoldError as error:
                return ColumnLineage(unknown=str(error))
            return observed(self.conn, compiled, parameters_of(self.conn, build), above)
        columns: Sequence[str] = LOG_COLUMNS
        called = LOG
        if upstream is not None:
            columns = [column.name for column in self._columns("refold_builds", upstream.table_name)]
            # It may have been renamed since the text was written.
            called = stream_in(build.definition, {upstream.projection})
        relations: Relations = {("", called): (above, columns), ("refold", called): (above, columns)}
        return column_lineage(build.definition, relations)

    def _views(self) -> None:
        projections = [build.projection for build in self.builds]
        rows = self.conn.execute(_VIEWS, {"metrics": projections}).fetchall()
        names = {oid: _view_name(schema, name) for oid, schema, name, *_ in rows}
        relations = {
            ("metrics", node.name): (node.name, [column.name for column in node.columns])
            for node in self.nodes
            if node.kind in ("stream", "metric")
        }
        relations |= {
            (schema, name): (_view_name(schema, name), [column.name for column in self._columns(schema, name)])
            for _, schema, name, *_ in rows
        }
        for oid, schema, name, text, description, above in rows:
            if schema == "metrics" and name in projections:
                continue
            own = names[oid]
            node = Node(own, "view", description, None, f"{schema}.{name}", self._columns(schema, name))
            if self.with_columns:
                node = replace(node, lineage=column_lineage(text.rstrip().removesuffix(";"), relations))
            self.nodes.append(node)
            self.edges += [Edge(names[one], own) for one in above if one in names]

    def _of_relation(self, schema: str, name: str) -> tuple[str | None, tuple[Column, ...]]:
        row = self.conn.execute(
            "SELECT obj_description(c.oid, 'pg_class') FROM pg_class AS c"
            " WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relname = %s",
            (schema, name),
        ).fetchone()
        return (None if row is None else row[0]), self._columns(schema, name)

    def _columns(self, schema: str, name: str) -> tuple[Column, ...]:
        rows: Iterable[tuple[str, str, str | None]] = self.conn.execute(
            """
            SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), col_description(a.attrelid, a.attnum)
            FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
            WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relname = %s
              AND a.attnum > 0 AND NOT a.attisdropped
            ORDER BY a.attnum
            """,
            (schema, name),
        ).fetchall()
        return tuple(Column(*row) for row in rows)


def _view_name(schema: str, name: str) -> str:
    return name if schema == "metrics" else f"{schema}.{name}"


def as_dot(graph: Graph) -> str:
    """Return the graph in the language of Graphviz. Pure."""
    shapes: Mapping[Kind, str] = {
        "capture": "cds", "log": "cylinder", "stream": "box", "metric": "box", "view": "note", "sink": "cds",
    }  # fmt: skip
    lines = ["digraph refold {", "    rankdir=LR;"]
    lines += [
        f"    {_dot(node.id)} [label={_dot(node.name)}, shape={shapes[node.kind]}"
        + (", style=rounded];" if node.kind == "stream" else "];")
        for node in graph.nodes
    ]
    lines += [f"    {_dot(edge.above)} -> {_dot(edge.below)};" for edge in graph.edges]
    return "\n".join([*lines, "}"])


def _dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
