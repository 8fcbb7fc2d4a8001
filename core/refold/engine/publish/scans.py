"""Views for analysts that read a whole stream: the cost of each read grows with the number of events.

A metric is read as its table stores it. A view on top computes its rows at each read. That is cheap over a metric, and
expensive over a stream, which has a row for each event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from refold.engine.publish.views import METRICS_SCHEMA
from refold.postgres.rows import one_row
from refold.store.builds.build import EVENT_GRAIN

ROW_S = 0.3e-6
"""Estimated seconds for each row: the delivered views took 0.9 to 1.8 s for 4.6 million events."""
_STOPS = ("Sort", "Incremental Sort", "Aggregate", "Hash", "WindowAgg", "Materialize", "SetOp")
"""Plan nodes that read all rows of their input, whatever the node above needs."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A view that reads all rows of a stream, each time that it is read.

    Args:
        view: its name in `metrics`.
        stream: `events`, or an event-grain projection.
        through: the views between it and the stream, nearest first.
        rows: estimated rows of the stream; for a new stream, the events in the log.
        bytes: size of the table of the stream.
        new: whether the stream is yet to be built.
    """

    view: str
    stream: str
    through: tuple[str, ...]
    rows: int
    bytes: int
    new: bool = False

    @property
    def seconds(self) -> float:
        """Return the estimated seconds of a read."""
        return self.rows * ROW_S

    def told(self) -> str:
        """Describe in words the rows that a read of the view reads."""
        by = f" through {', '.join(self.through)}" if self.through else ""
        if self.new:
            return (
                f"all of {self.stream}{by}, which is yet to be built: a row for each event that it takes, of now about"
                f" {self.rows:,}; more with each event"
            )
        time = f"{self.seconds:.1f} s" if self.seconds >= 0.1 else "under 0.1 s"
        return (
            f"all of {self.stream}{by}: now about {self.rows:,} rows, {self.bytes / 2**20:,.0f} MiB, {time};"
            " more with each event"
        )


_STREAMS = """
WITH RECURSIVE below (view, oid, through) AS (
    SELECT c.relname::text, c.oid, '{}'::name[]
    FROM pg_class AS c
    WHERE c.relnamespace = CASE WHEN %(tried)s THEN pg_my_temp_schema() ELSE 'metrics'::regnamespace END
      AND c.relkind = 'v' AND c.relname = ANY (%(views)s)
    UNION
    SELECT below.view, d.refobjid,
           CASE WHEN c.relname = below.view THEN below.through ELSE below.through || c.relname END
    FROM below
    JOIN pg_class AS c ON c.oid = below.oid AND c.relkind = 'v'
    JOIN pg_rewrite AS r ON r.ev_class = c.oid
    JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                       AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
)
SELECT DISTINCT ON (below.view, s.stream)
    below.view, s.stream,
    -- The view of the stream itself does not count as a step between.
    array_remove(below.through, s.stream::name)::text[] AS through,
    c.relnamespace::regnamespace || '.' || c.relname AS relation,
    CASE WHEN s.build_id IS NULL OR s.new THEN (SELECT last_value FROM refold.events_position)
         WHEN c.reltuples > 0 AND c.relpages > 0
         THEN c.reltuples / c.relpages * pg_relation_size(c.oid) / current_setting('block_size')::integer
         ELSE s.applied END::bigint AS rows,
    CASE WHEN s.build_id IS NULL
         THEN (SELECT sum(pg_relation_size(i.inhrelid)) FROM pg_inherits AS i WHERE i.inhparent = c.oid)
         ELSE pg_relation_size(c.oid) END::bigint AS bytes,
    s.new
FROM below
JOIN (
    SELECT NULL::bigint AS build_id, 'events' AS stream, 'refold.events'::regclass::oid AS relation, 0 AS applied,
           false AS new
    UNION ALL
    SELECT b.build_id, b.projection, to_regclass(format('refold_builds.%%I', b.table_name))::oid, b.events_applied,
           NOT b.loaded
    FROM refold.builds_now AS b
    WHERE (b.state = 'live' OR %(tried)s AND b.state = 'building') AND b.upkeep = ANY (%(grain)s)
) AS s ON s.relation = below.oid
JOIN pg_class AS c ON c.oid = s.relation
ORDER BY below.view, s.stream, cardinality(below.through)
"""


def scans(conn: psycopg.Connection, views: Iterable[str], *, tried: bool = False) -> list[Scan]:
    """Return the views that read a whole stream at each read.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        views: names of analysts' views in `metrics`, not of metrics.
        tried: the views are in pg_temp instead, on builds that are not live yet; in the caller's transaction.
    """
    parameters = {"views": list(views), "grain": list(EVENT_GRAIN), "tried": tried}
    found = conn.execute(_STREAMS.encode(), parameters).fetchall()
    whole: dict[str, set[str]] = {}
    for view, *_ in found:
        if view not in whole:
            whole[view] = _read_whole(conn, sql.Identifier("pg_temp" if tried else METRICS_SCHEMA, view))
    return [
        Scan(view, stream, tuple(through), rows, size, new)
        for view, stream, through, relation, rows, size, new in found
        if relation in whole[view]
    ]


def _read_whole(conn: psycopg.Connection, view: sql.Identifier) -> set[str]:
    """Return the tables that a view reads in full even if sequential scans are disabled."""
    with conn.transaction(force_rollback=True):
        # Postgres reads a small table in full anyway; the setting shows the plan for a large table.
        conn.execute("SET LOCAL enable_seqscan = off")
        (plan,) = one_row(conn, sql.SQL("EXPLAIN (VERBOSE, FORMAT JSON) SELECT * FROM {}").format(view))
    read = set(_whole(plan[0]["Plan"], limited=False))
    return read | {"refold.events"} if any(name.startswith("refold.events_") for name in read) else read


def _whole(node: dict[str, Any], *, limited: bool) -> Iterator[str]:
    """Yield the tables that a plan reads in full: without an index condition and without a limit."""
    kind = node["Node Type"]
    limited = kind == "Limit" or (limited and kind not in _STOPS)
    if "Relation Name" in node and not limited and not _looked_up(node):
        yield f"{node['Schema']}.{node['Relation Name']}"
    for child in node.get("Plans", ()):
        yield from _whole(child, limited=limited)


def _looked_up(node: dict[str, Any]) -> bool:
    """Return whether an index condition finds the rows of a scan; a bitmap scan may read all rows."""
    return "Index Cond" in node or any(_looked_up(child) for child in node.get("Plans", ()))
