"""A scrape, and the dashboard's overview, of a thousand live metrics: without what is kept from the request before."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psycopg
from psycopg import sql

from benchmarks.report import Figure
from benchmarks.server import Server
from benchmarks.workbench import Workbench
from refold.dashboard.run import DashboardServer, Orders
from refold.dashboard.tokens import Tokens
from refold.exporter.exporter import ROLE
from refold.exporter.page import Page, page
from refold.exporter.readings import COARSE, FINE, read
from refold.postgres.connect import connect
from refold.service.duties import prune_statistics
from refold.store.builds.compiled import Compiler
from refold.web.listener import listening

SIZES = (FINE, COARSE, 1_000)
ROUNDS = 15
VIEWS = 7
LIMIT_MS, LIMIT_KB = 300, 1_000
PROJECTION = "counts"
ACCEPT = "application/openmetrics-text; version=1.0.0"


def measure(server: Server, events: int) -> list[Figure]:
    """Scrapes deployments of several sizes; they differ in nothing but the number of their builds."""
    figures = []
    for size in SIZES:
        with server.database("exporting") as url:
            bench = Workbench(url, events)
            bench.fill(events)
            bench.deploy(PROJECTION)
            bench.close()
            with psycopg.connect(url, autocommit=True) as admin:
                multiply(admin, size - 1)
                admin.execute("ANALYZE")
            with connect(url, "refold_worker", autocommit=True) as worker:
                prune_statistics.run(worker, Compiler(None))
            figures += [*_measure(url, size), _overview(url, size)]
    return figures


def _measure(url: str, size: int) -> list[Figure]:
    whole, reading = [], []
    found = Page(b"", "")
    with connect(url, ROLE, autocommit=True) as conn:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            readings = read(conn)
            reading.append((time.perf_counter() - began) * 1000)
            found = page(readings, ACCEPT)
            whole.append((time.perf_counter() - began) * 1000)
    note = f"of which {median(reading):.0f} ms in the database; at worst {max(whole):.0f} ms"
    return [
        Figure("exporting", f"a scrape of {size:,} metrics", median(whole), "ms", at_most=LIMIT_MS, note=note),
        Figure("exporting", f"its page, of {size:,} metrics", len(found.text) / 1000, "kB", at_most=LIMIT_KB),
    ]


def _overview(url: str, size: int) -> Figure:
    took = []
    with _dashboard(url) as port:
        for number in range(VIEWS + 1):
            time.sleep(1.05)  # the shared answer is old then
            began = time.perf_counter()
            client = http.client.HTTPConnection("127.0.0.1", port)
            client.request("GET", f"/?round={number}")
            assert client.getresponse().read()
            took.append((time.perf_counter() - began) * 1000)
            client.close()
    # The first one connects.
    return Figure("exporting", f"the overview of {size:,} metrics", median(took[1:]), "ms", at_most=LIMIT_MS)


@contextmanager
def _dashboard(url: str) -> Iterator[int]:
    with listening("127.0.0.1", 0) as socket:
        server = DashboardServer(Orders(url, tokens=Tokens()))
        thread = threading.Thread(target=server.run, args=([socket],))
        thread.start()
        try:
            yield socket.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def multiply(admin: psycopg.Connection, number: int) -> None:
    """Adds live builds like the first, each with a table, a cursor, proofs and latencies of its own.

    Args:
        admin: a superuser's connection, in autocommit mode.
        number: of builds.
    """
    admin.execute("SET session_replication_role = replica")
    admin.execute(
        """
        CREATE TEMP TABLE made AS
        SELECT 10000 + n AS build_id, format('metric_%%s', lpad(n::text, 6, '0')) AS projection,
               (SELECT min(build_id) FROM refold.builds) AS like_id
        FROM generate_series(1, %s) AS n
        """,
        (number,),
    )
    for table in ("builds", "cursors"):
        columns = [
            name
            for (name,) in admin.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (f"refold.{table}",),
            ).fetchall()
        ]
        changed = {"build_id": "m.build_id", "projection": "m.projection", "table_name": "m.projection || '__x__1'"}
        values = [sql.SQL(changed[one]) if one in changed else sql.Identifier("t", one) for one in columns]
        admin.execute(
            sql.SQL(
                "INSERT INTO refold.{table} ({columns}) OVERRIDING SYSTEM VALUE"
                " SELECT {values} FROM refold.{table} AS t JOIN made AS m ON t.build_id = m.like_id"
            ).format(
                table=sql.Identifier(table),
                columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
                values=sql.SQL(", ").join(values),
            )
        )
    admin.execute("SET session_replication_role = origin")
    admin.execute(
        """
        INSERT INTO refold.proofs (build_id, depth, began_at, ended_at, rows, slices, differed)
        SELECT build_id, depth, at, at, 1, 1, 0
        FROM made, unnest('{quick,deep}'::text[]) AS depth,
             generate_series(now() - interval '1 hour', now(), interval '1 minute') AS at
        """
    )
    admin.execute(
        """
        INSERT INTO refold.latencies (minute, build_id, stage, bucket, events)
        SELECT date_trunc('minute', now()) - m * interval '1 minute', build_id, stage, b, 7
        FROM made, unnest('{waiting,applying,fresh}'::text[]) AS stage, generate_series(-100, 20, 15) AS b,
             generate_series(0, 4) AS m
        """
    )
    for (name,) in admin.execute("SELECT projection FROM made").fetchall():
        admin.execute(sql.SQL("CREATE TABLE refold_builds.{} (n integer)").format(sql.Identifier(f"{name}__x__1")))
    admin.execute("DROP TABLE made")
