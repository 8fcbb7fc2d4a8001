"""A folder of SQL projections, kept live in a test's database, and compared with what its files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from refold.builds.build import Build
from refold.database import connect
from refold.deployment.deploy import deploy
from refold.projections.definition import load_directory
from refold.worker.loop import Worker

Rows = list[tuple[Any, ...]]


def make_live(url: str, folder: Path) -> list[Build]:
    """Deploys a folder; its projections are live when this returns."""
    with connect(url, "refold_worker", autocommit=True) as conn:
        return deploy(conn, folder, load_directory(folder), lambda progress: None)


def drain(url: str, folder: Path | None = None) -> None:
    """Applies everything that was committed before."""
    Worker(url, folder).run(drain=True)


def wrong(url: str, folder: Path) -> dict[str, Rows]:
    """The metrics on the log that differ from their file's query over it, with the rows of one side.

    It knows nothing of refold but the names of schemas; everything must have been applied.
    """
    found: dict[str, Rows] = {}
    with psycopg.connect(url) as conn:
        conn.execute("SET search_path = refold, pg_catalog")
        for path in sorted(folder.glob("*.sql")):
            text = path.read_text()
            if "FROM events" not in text:
                continue
            query = sql.SQL(
                "WITH plain AS ({text}\n), metric AS (SELECT * FROM metrics.{name})"
                " SELECT 'too much', * FROM (TABLE metric EXCEPT ALL TABLE plain) AS a"
                " UNION ALL SELECT 'missing', * FROM (TABLE plain EXCEPT ALL TABLE metric) AS b"
            ).format(text=sql.SQL(text), name=sql.Identifier(path.stem))  # type: ignore[arg-type]
            rows = conn.execute(query).fetchall()
            if rows:
                found[path.stem] = rows
    return found
