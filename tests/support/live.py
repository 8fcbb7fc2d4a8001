"""A folder of projections, kept live in a test's database, and compared with what its files say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql

from refold.engine.deployment.deploy import deploy
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect
from refold.service.worker.loop import Worker
from refold.store.builds.build import find

Rows = list[tuple[Any, ...]]

PROJECTS = Path(__file__).parents[1] / "projects"
SHOP = PROJECTS / "shop"
"""A projection of every kind: daily (members), purchases (facts), totals (merge over facts), paths (recompute),
graded (a transform), grades (members over it), grade_paths (recompute over it)."""
TRANSFORMS = MappingProxyType({
    "graded": """
        SELECT event_id, user_id, ts,
               CASE WHEN (metadata->>'amount')::numeric >= 100 THEN 'big' ELSE 'small' END AS grade
        FROM events"""
})  # fmt: skip
"""What the transforms do, said a second time, in SQL."""


def make_live(url: str, folder: Path = SHOP) -> dict[str, str]:
    """Deploys a folder; its projections are live when this returns. Gives the table of each.

    Where the test is marked with `live` they were before: nothing changes then, which takes a moment.
    """
    definitions = load_directory(folder)
    with connect(url, "refold_worker", autocommit=True) as conn:
        deploy(conn, folder, definitions, lambda progress: None)
        builds = find(conn, "b.state = 'live' AND b.projection = ANY (%s)", list(definitions))
    return {build.projection: f"refold_builds.{build.table_name}" for build in builds}


def drain(url: str, folder: Path = SHOP) -> None:
    """Applies everything that was committed before."""
    Worker(url, folder).run(drain=True)


def wrong(url: str, folder: Path = SHOP, transforms: Mapping[str, str] = TRANSFORMS) -> dict[str, Rows]:
    """The metrics that differ from their file's query over the log, with the rows of one side.

    It knows nothing of refold but the names of schemas; everything must have been applied.
    """
    found: dict[str, Rows] = {}
    with psycopg.connect(url) as conn:
        conn.execute("SET search_path = pg_temp, refold, pg_catalog; SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'")
        texts = {path.stem: path.read_text() for path in sorted(folder.glob("*.sql"))}
        texts |= {path.stem: transforms[path.stem] for path in folder.glob("*.py")}
        later: list[str] = sorted(texts, key=lambda name: "FROM events" not in texts[name])
        for name in later:
            conn.execute(f"CREATE TEMPORARY VIEW {name} AS {texts[name]}".encode())
            query = sql.SQL(
                "SELECT 'too much', * FROM (TABLE metrics.{name} EXCEPT ALL TABLE pg_temp.{name}) AS a"
                " UNION ALL SELECT 'missing', * FROM (TABLE pg_temp.{name} EXCEPT ALL TABLE metrics.{name}) AS b"
            )
            rows = conn.execute(query.format(name=sql.Identifier(name))).fetchall()
            if rows:
                found[name] = rows
        conn.rollback()
    return found
