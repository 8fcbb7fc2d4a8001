"""The first load of a metric, as a rebuild runs it, against CREATE TABLE AS of its query with the same keys."""

from __future__ import annotations

import psycopg

from benchmarks.report import Figure
from benchmarks.rounds import alternate
from benchmarks.server import Server
from benchmarks.workbench import Workbench

ROUNDS = 5
KINDS = {
    # kind: (projection, goal, what makes a table by hand equal to the build: keys and indexes)
    "merge": ("counts", 0.8, ("CREATE UNIQUE INDEX ON hand.counts (day, action) NULLS NOT DISTINCT",)),
    "facts": (
        "amounts",
        0.8,
        (
            "CREATE UNIQUE INDEX ON hand.amounts (event_id)",
            "CREATE UNIQUE INDEX ON hand.amounts (txid, position, ordinal)",
        ),
    ),
    "recompute": (
        "paths",
        0.6,
        (
            "CREATE UNIQUE INDEX ON hand.paths (user_id) NULLS NOT DISTINCT",
            "CREATE INDEX ON hand.paths (hash_record_extended(ROW(user_id), 0))",
        ),
    ),
    "members": ("visitors", 0.5, ("CREATE UNIQUE INDEX ON hand.visitors (day, action) NULLS NOT DISTINCT",)),
}
COORDINATES = "SELECT txid, position, 0 AS ordinal, "
"""A stream's rows say where in the log they come from, also when they are made by hand."""


def measure(server: Server, events: int) -> list[Figure]:
    """Rebuilds each metric over all events."""
    with server.database("building") as url:
        bench = Workbench(url, events)
        bench.fill(events)
        bench.deploy(*(projection for projection, _, _ in KINDS.values()))
        figures = [_measure_kind(bench, kind) for kind in KINDS]
        bench.close()
    return figures


def _measure_kind(bench: Workbench, kind: str) -> Figure:
    projection, goal, indexes = KINDS[kind]
    query = bench.definitions[projection].source.replace("FROM events", "FROM refold.events")
    if kind == "facts":
        query = query.replace("SELECT", COORDINATES, 1)

    def product(at: int) -> None:
        bench.rebuild(projection)

    def baseline(at: int) -> None:
        for statement in (f"CREATE TABLE hand.{projection} AS {query}", *indexes):
            bench.hand.execute(statement.encode())

    def fresh() -> None:
        bench.hand.execute("DROP SCHEMA IF EXISTS hand CASCADE")
        bench.hand.execute("CREATE SCHEMA hand")
        bench.forget()

    compared = alternate(ROUNDS, bench.events, product, baseline, before=fresh)
    same = _differences(bench.hand, f"metrics.{projection}", f"hand.{projection}")
    assert same == 0, (projection, same)
    return Figure(
        "building",
        f"{kind}: rebuild, from the command to the switch",
        compared.measured,
        "events/s",
        compared.baseline,
        compared.ratio,
        at_least=goal,
    )


def _differences(conn: psycopg.Connection, one: str, other: str) -> int:
    """How many rows the first relation has that the second lacks, in the first's columns."""
    columns = [column.name for column in conn.execute(f"SELECT * FROM {one} LIMIT 0".encode()).description or []]
    listed = ", ".join(columns)
    row = conn.execute(
        f"SELECT count(*) FROM (SELECT {listed} FROM {one} EXCEPT SELECT {listed} FROM {other}) AS d".encode()
    ).fetchone()
    assert row is not None
    return int(row[0])
