"""Views for analysts that read a stream: each read of them costs as much as there are events.

What a metric keeps is read as it stands. A view on top computes its rows anew at each read, which is cheap over what is
kept, and dear over a row for each event.
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
"""Seconds a row, roughly: the delivered views once took 0.9 to 1.8 s for 4.6 million events."""
_STOPS = ("Sort", "Incremental Sort", "Aggregate", "Hash", "WindowAgg", "Materialize", "SetOp")
"""Nodes that read all of what is below them, whatever is wanted above."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A view that reads all rows of a stream, each time that it is read.

    Args:
        view: its name in `metrics`.
        stream: `events`, or an event-grain projection.
        through: the views of which it reads the nearest, and this the next, down to the stream.
        rows: about how many rows the stream has; of a new one, how many events there are.
        bytes: the size of its table.
        new: the stream has yet to be built.
    """

    view: str
    stream: str
    through: tuple[str, ...]
    rows: int
    bytes: int
    new: bool = False

    @property
    def seconds(self) -> float:
        """How long a read takes, roughly."""
        return self.rows * ROW_S

    def told(self) -> str:
        """What a read of the view reads, in words."""
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
    -- The stream's own view is no way to it.
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
    """Which of some views read all of a stream at each read.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        views: names of views in `metrics`; those of metrics are none of them.
        tried: they stand in pg_temp instead, on builds that have yet to go live; in the caller's transaction.
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
    """The tables that a view reads from one end to the other, even where Postgres does all to avoid it."""
    with conn.transaction(force_rollback=True):
        # A small table is read whole in any case; this tells what happens when it has grown.
        conn.execute("SET LOCAL enable_seqscan = off")
        (plan,) = one_row(conn, sql.SQL("EXPLAIN (VERBOSE, FORMAT JSON) SELECT * FROM {}").format(view))
    read = set(_whole(plan[0]["Plan"], limited=False))
    return read | {"refold.events"} if any(name.startswith("refold.events_") for name in read) else read


def _whole(node: dict[str, Any], *, limited: bool) -> Iterator[str]:
    """The tables that a plan reads without a condition by which an index finds the rows, and without a limit."""
    kind = node["Node Type"]
    limited = kind == "Limit" or (limited and kind not in _STOPS)
    if "Relation Name" in node and not limited and not _looked_up(node):
        yield f"{node['Schema']}.{node['Relation Name']}"
    for child in node.get("Plans", ()):
        yield from _whole(child, limited=limited)


def _looked_up(node: dict[str, Any]) -> bool:
    """Whether an index finds the rows of a scan. A bitmap may be of all of them."""
    return "Index Cond" in node or any(_looked_up(child) for child in node.get("Plans", ()))
