"""Backfills from files in tests: staged, checked and run in this process, or in one that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from refold.engine.backfill.run import Terms, run
from refold.inspect.backfill.check import Findings
from refold.inspect.backfill.check import check as read
from refold.postgres.connect import connect
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source
from refold.sources.files.staging import Stager
from refold.store import file_backfills as store
from refold.store.builds.compiled import Compiler
from refold.store.file_backfills import FileBackfill
from refold.store.log.log import log_as

LANE_POINTS = ["lane_begun", "lane_locked", "lane_stored", "lane_moved", "lane_committed"]


def write(path: Path, records: Iterable[Any]) -> Path:
    """Writes records as JSON lines; a text stays as it is."""
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


def stage(url: str, name: str, *paths: Path) -> FileBackfill:
    with connect(url, "refold_backfill", autocommit=True) as conn:
        made = store.begin(conn, name, {})
        stager = Stager(conn, made)
        for path in paths:
            with open_source(str(path)) as source:
                stager.stage(source, Mapper(Mapping(), source))
        return store.staged(conn, made, [{"name": one.name, "records": one.records} for one in stager.files])


def check(url: str, backfill: FileBackfill, folder: Path) -> Findings:
    """Checks a backfill, and records that it was."""
    with connect(url, "refold_worker", autocommit=True) as conn:
        found = read(conn, Compiler(folder), backfill)
    with connect(url, "refold_backfill", autocommit=True) as conn:
        store.checked(conn, backfill, found.as_dict())
    return found


def give(
    url: str, backfill: FileBackfill, terms: Terms | None = None, *, batch: int | None = None, **more: Any
) -> FileBackfill:
    """Runs a backfill in this process, with a first batch of so many records."""
    with connect(url, "refold_backfill", autocommit=True) as conn:
        if batch is not None:
            conn.execute(
                "UPDATE refold.file_backfills SET batch = %s WHERE backfill_id = %s", (batch, backfill.backfill_id)
            )
        current = store.read(conn, backfill.backfill_id)
    with log_as(url, "refold_backfill") as lane, log_as(url, "refold_worker") as reader:
        return run(lane, reader, current, terms or Terms(3600.0), **more)


def command(url: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `refold` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "refold", *arguments],
        env=os.environ | {"REFOLD_DATABASE_URL": url} | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def staged_tables(conn: psycopg.Connection[Any]) -> int:
    """The number of staging tables."""
    return conn.execute(
        "SELECT FROM pg_class WHERE relnamespace = 'refold_backfill'::regnamespace AND relkind = 'r'"
    ).rowcount
