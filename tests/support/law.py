"""The one law, as tests check it: every build equals its query over what its cursor says was applied.

`broken` asks refold's own audit of one build. `wrong_metrics` knows nothing of refold: it runs the text of
each projection's file, as its author wrote it, over the whole log, with the rows of the transforms made here.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from refold import SourceEvent
from refold.engine.deployment.deploy import deploy
from refold.engine.reconcile.audit import audit
from refold.model.projection.definition import Definition, load_directory
from refold.model.stream.parameters import cursor_parameters
from refold.postgres.connect import connect
from refold.store.builds.build import BY_KEY, Build, by_id
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import excluded_event_ids
from refold.store.schema.migrate import migrate
from tests.conftest import ServerUnderTest
from tests.support.making import small_segments

PROJECT = Path(__file__).parents[1] / "projects" / "law"
"""One projection of every kind, on the log and on each other."""

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)

TRANSFORM_TYPES = {
    "tagged": 'user_id text COLLATE "C", ts timestamptz, tag text COLLATE "C", weight numeric',
    "items": 'user_id text COLLATE "C", ts timestamptz, item text COLLATE "C", place bigint',
    "letters": 'user_id text COLLATE "C", letter text COLLATE "C"',
}
"""The transforms' columns beside event_id, said a second time, independently of refold."""

Rows = list[tuple[Any, ...]]


@contextmanager
def database(server: ServerUnderTest, *, segment_size: int, segments: int, folder: Path = PROJECT) -> Iterator[str]:
    """A database for the tests of a module, in which a project is live; gives its URL.

    Args:
        server: where.
        segment_size: positions in a segment of its log.
        segments: about how many segments there are from the start. While there is room nobody makes one, which
            takes a lock until the transaction ends.
        folder: the project; by default the law's.
    """
    name = f"refold_law_{os.getpid()}_{segment_size}"
    url = server.url_of(name)
    with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            migrate(url)
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("UPDATE refold.settings SET segments_ahead = %s", (segments,))
                small_segments(conn, segment_size)
            deploy_project(url, folder)
            yield url
        finally:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def random_events(number: int, seed: int = 0, *, prefix: str = "e") -> list[SourceEvent]:
    """Events with everything that the law's project looks at: late ones, anonymous ones, ties, lists."""
    random = Random(seed)
    events = []
    for at in range(number):
        metadata: dict[str, object] = {"items": random.choices(["a", "bb", "c"], k=random.randrange(4))}
        if random.random() < 0.7:
            metadata["n"] = Decimal(random.choice(["1.0", "1.00", "2.5", "7", "-3"]))
        if random.random() < 0.7:
            metadata["place"] = random.choice(["x", "y"])
        events.append(
            SourceEvent(
                id=f"{prefix}{at}",
                user_id=random.choice([None, *(f"u{user}" for user in range(12))]),
                action=random.choice(["view", "buy", "noise"]),
                ts=MONDAY + timedelta(minutes=random.randrange(-3000, 3000)),
                metadata=metadata,
            )
        )
    return events


@cache
def project() -> dict[str, Definition]:
    """The law's project, read once: that takes longer than most of what tests do with it."""
    return load_directory(PROJECT)


def deploy_project(url: str, folder: Path = PROJECT) -> list[Build]:
    """Deploys a folder of projections; they are live when it returns."""
    with worker_connection(url) as conn:
        return deploy(conn, folder, load_directory(folder), lambda progress: None)


@contextmanager
def worker_connection(url: str) -> Iterator[psycopg.Connection]:
    """A connection such as a worker has."""
    settings = {"plan_cache_mode": "force_generic_plan", "synchronous_commit": "off"}
    with connect(url, "refold_worker", autocommit=True, settings=settings) as conn:
        yield conn


def broken(conn: psycopg.Connection, compiler: Compiler, build_id: int) -> list[object]:
    """How one build differs from its query over what its cursor has applied, as refold itself sees it."""
    build = by_id(conn, build_id)
    compiled = compiler.of(conn, build)
    if compiled.transform is not None:
        return list(audit(conn, compiled, keep=True).report.findings)
    if not build.loaded and build.upkeep in BY_KEY:
        return []  # It is loaded by hash ranges of the key, of which the cursor says nothing.
    found: list[object] = []
    for relation in compiled.statements.relations:
        query = relation.differences("true", "true").encode()
        rows = conn.execute(query, cursor_parameters(build.cursor, excluded_event_ids(conn, build))).fetchall()
        found += [(relation.table, str(build.cursor), *row) for row in rows]
    return found


def wrong_metrics(
    url: str,
    definitions: Mapping[str, Definition] | None = None,
    left_out: Mapping[str, Collection[str]] = MappingProxyType({}),
    log: str = "refold.events",
) -> dict[str, Rows]:
    """The live metrics that differ from their file's query over the whole log, with the rows of one side.

    Everything must have been applied: this knows of no cursor.

    Args:
        url: the database.
        definitions: the projections; by default the law's project.
        left_out: ids of events that a projection could not process.
        log: the relation that has all events.
    """
    found: dict[str, Rows] = {}
    with psycopg.connect(url) as conn:
        conn.execute("SET search_path = pg_temp, refold, pg_catalog")
        conn.execute("SET TimeZone = 'UTC'")
        for name, definition in (definitions or project()).items():
            assert definition.path is not None
            ids = sql.Literal(list(left_out.get(name, [])))
            conn.execute(
                sql.SQL(
                    "CREATE OR REPLACE TEMPORARY VIEW events AS"
                    " SELECT * FROM {log} WHERE event_id <> ALL ({ids}::text[])"
                ).format(log=sql.Identifier(*log.split(".")), ids=ids)
            )
            if definition.path.suffix == ".sql":
                query = f"CREATE TEMPORARY TABLE {name} AS {definition.path.read_text()}"
                conn.execute(query.encode())
            else:
                _evaluate(conn, definition.path, definition.plan.stream)
            columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in definition.plan.columns)
            metric = sql.SQL("SELECT {} FROM metrics.{}").format(columns, sql.Identifier(name))
            plain = sql.SQL("SELECT {} FROM pg_temp.{}").format(columns, sql.Identifier(name))
            both = sql.SQL(
                "SELECT 'too much', * FROM ({metric} EXCEPT ALL {plain}) AS a"
                " UNION ALL SELECT 'missing', * FROM ({plain} EXCEPT ALL {metric}) AS b"
            )
            rows = conn.execute(both.format(metric=metric, plain=plain)).fetchall()
            if rows:
                found[name] = rows
        conn.rollback()
    return found


def _evaluate(conn: psycopg.Connection, path: Path, stream: str) -> None:
    """Makes a temporary table of what a transform says about each row of its stream."""
    name = path.stem
    spec = importlib.util.spec_from_file_location(f"law_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name)
    takes = getattr(module, "Event", None) or module.Item
    conn.execute(f'CREATE TEMPORARY TABLE {name} (event_id text COLLATE "C", {TRANSFORM_TYPES[name]})'.encode())
    with conn.cursor(row_factory=dict_row) as cursor:
        given = cursor.execute(f"SELECT * FROM {stream}".encode()).fetchall()
    with conn.cursor() as writer, writer.copy(f"COPY {name} FROM STDIN".encode()) as copy:
        for row in given:
            answer = function(takes(**{field: row[field] for field in takes.model_fields}))
            if isinstance(answer, list):
                for at, one in enumerate(answer):
                    copy.write_row([f"{row['event_id']}#{at}", *one.model_dump().values()])
            elif answer is not None:
                copy.write_row(list(answer.model_dump().values()))
