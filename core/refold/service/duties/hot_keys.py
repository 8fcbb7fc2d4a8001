"""The duty that detects hot keys: keys whose many events make every page with one of them expensive.

What is recomputed by key reads all events of a key for one that is new. Who is to blame is found by what pages took:
only where they are expensive though they bring few events are keys looked at, those of the latest events.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from refold.engine.apply.page import FREE
from refold.model.projection.plan import KeyPart
from refold.model.quantiles import quantile
from refold.model.sql_text import hash_of, ident, quoted
from refold.service.duties.findings import DutyFinding, record
from refold.store.builds.build import BY_KEY, Build, kept
from refold.store.builds.compiled import CompiledBuild, Compiler

NAME = "hot keys"
MINUTES = 5
"""Minutes of latencies that count."""
MOST = 0.9
"""Quantile of the page durations that counts as the cost of a page."""
BUSY = 60_000
"""Events per minute from which on expensive pages are normal: a backlog, or much traffic."""
LATEST = 300
"""Latest events whose keys are checked."""
HOT = 20_000
"""Events that make a key hot: reading them takes a tenth of a second."""
COUNTED = 1_000_000
"""Most events of a hot key that are counted."""


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key that makes pages expensive.

    Args:
        key: columns of the key.
        events: number of its events in the stream, counted up to `COUNTED`.
        total: estimated number of events in the stream.
        without: the WHERE clause that leaves the key's events out.
    """

    key: Mapping[str, Any]
    events: int
    total: int
    without: str


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Open and resolve the incident `hot_key` of builds whose pages a key makes expensive."""
    builds = [build for build in kept(conn) if build.loaded and build.upkeep in BY_KEY]
    costs = expensive(_latencies(conn), (build.build_id for build in builds))
    found = []
    for build in builds:
        if build.build_id not in costs:
            continue
        hot = hottest(conn, compiler.of(conn, build))
        if hot is not None:
            found.append(_finding(build, costs[build.build_id], hot))
    record(conn, "hot_key", NAME, found)


def expensive(latencies: Iterable[tuple[int, int, int]], builds: Iterable[int]) -> dict[int, float]:
    """Return the cost of a page for builds with expensive pages, seconds. Pure.

    Args:
        latencies: build, bucket and events of the stage `applying` in the latest minutes.
        builds: builds to consider.
    """
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for build_id, bucket, events in latencies:
        counts[build_id][bucket] += events
    costs: dict[int, float] = {}
    for build_id in builds:
        seconds = quantile(counts[build_id], MOST)
        if seconds is not None and seconds > FREE and counts[build_id].total() < BUSY * MINUTES:
            costs[build_id] = seconds
    return costs


def hottest(conn: psycopg.Connection, compiled: CompiledBuild) -> HotKey | None:
    """Return the most frequent hot key among the latest events; None if no key is hot.

    Args:
        conn: acts as refold_worker.
        compiled: a build with upkeep by key, whose stream has an index on the key.
    """
    key, stream = compiled.plan.key, compiled.stream
    hashed = hash_of([part.sql for part in key])
    named = ", ".join(f"{quoted(part.name)}, {part.sql}" for part in key)
    latest_first = ", ".join(f"{name} DESC" for name in stream.coordinates.split(", "))
    columns = ", ".join(map(ident, compiled.plan.reads)) or "event_id"

    def counted(hash_: str, most: int) -> str:
        # The index finds a key's events, and no more of them than are asked for.
        return f"SELECT count(*) FROM (SELECT FROM {stream.table} WHERE {hashed} = {hash_} LIMIT {most}) AS e"

    row = conn.execute(
        f"""
        SELECT touched.hash, touched.key, counted.events
        FROM (
            SELECT {hashed} AS hash, min(jsonb_build_object({named})::text)::jsonb AS key
            FROM (SELECT {columns} FROM {stream.table} ORDER BY {latest_first} LIMIT {LATEST}) AS latest
            GROUP BY 1
            ORDER BY count(*) DESC
            OFFSET 0
        ) AS touched
        CROSS JOIN LATERAL ({counted("touched.hash", HOT)}) AS counted (events)
        WHERE counted.events >= {HOT}
        LIMIT 1
        """.encode()
    ).fetchone()
    if row is None:
        return None
    hash_, found, _ = row
    [events] = conn.execute(counted(f"'{hash_}'::bigint", COUNTED).encode()).fetchone() or (0,)
    [total] = conn.execute(_TOTAL, (stream.table,)).fetchone() or (0,)
    return HotKey(found, events, max(total, events), without(compiled.plan.key, found))


def without(key: Sequence[KeyPart], values: Mapping[str, Any]) -> str:
    """Return the WHERE clause that leaves out the events of a key, to write into its projection. Pure.

    Args:
        key: the parts of the key.
        values: the value of each part, by its name.
    """
    told = [f"{part.sql} IS DISTINCT FROM {_literal(values[part.name])}" for part in key]
    return f"WHERE {told[0]}" if len(told) == 1 else f"WHERE ({' OR '.join(told)})"


def _literal(value: object) -> str:
    """Return a value of JSON as Postgres reads it beside an expression of the key's type."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return quoted(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


# What the planner knows of a table and its partitions.
_TOTAL = """
SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint
FROM pg_partition_tree(%s::regclass) AS t JOIN pg_class AS c ON c.oid = t.relid
WHERE c.relkind = 'r'
"""

_RECENT = f"""
SELECT build_id, bucket, events FROM refold.latencies
WHERE stage = 'applying' AND minute > now() - interval '{MINUTES} minutes'
"""


def _latencies(conn: psycopg.Connection) -> Sequence[tuple[int, int, int]]:
    return conn.execute(_RECENT.encode()).fetchall()


def _finding(build: Build, seconds: float, hot: HotKey) -> DutyFinding:
    return DutyFinding(
        build.table_name,
        None,
        {
            "projection": build.projection,
            "key": dict(hot.key),
            "events": hot.events,
            "share": round(hot.events / hot.total, 3),
            "page_seconds": round(seconds, 3),
            "without": hot.without,
        },
    )
