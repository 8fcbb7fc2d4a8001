"""Real data through the command line give the figures that were published about them."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.live import drain, make_live, wrong

Connection = psycopg.Connection[Any]
pytestmark = pytest.mark.data

DATA = Path(os.environ.get("REFOLD_TEST_DATA", Path(__file__).parents[1] / "../shared/data"))
PROJECT = Path(__file__).parent / "projects" / "real"

SHOP_FIGURES = (32_283, 3_751, 12, 181)
SHOP_FUNNELS = ([3611, 1924, 653], [3611, 2010, 1257, 429])
"""Retentioneering's own documentation: users per step."""
CDNOW_FIGURES = (69_659, 23_570, 1, 546)
CDNOW_REPEATED = 255
"""Lines that repeat an earlier one exactly, and are purchases of their own."""

SHOP = ("--timezone", "UTC")
SHOP_MAP = "user_id=client_id,action=event,ts=timestamp"
CDNOW = ("--delimiter", "whitespace", "--set", "action=purchase", "--ts-format", "%Y%m%d", "--timezone", "UTC")
CDNOW_MAP = "user_id=customer_id,ts=date"


@pytest.fixture
def shop() -> Path:
    return existing(DATA / "simple_shop" / "simple-onlineshop.csv")


@pytest.fixture
def cdnow() -> Path:
    return existing(DATA / "cdnow" / "CDNOW_master.txt.gz")


def existing(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"no real event data at {path}")
    return path


def refold(url: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "refold", "ingest", "--json", *map(str, arguments)],
        env={**os.environ, "REFOLD_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )


def told(processes: Iterable[subprocess.Popen[str]]) -> dict[str, int]:
    """The sums of what the processes say about themselves."""
    reports = []
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        reports.append(json.loads(out))
    return {name: sum(report[name] for report in reports) for name in ("received", "stored", "duplicates", "rejected")}


def figures(conn: Connection) -> tuple[Any, ...] | None:
    return conn.execute("SELECT events, users, actions, days FROM metrics.figures").fetchone()


def funnel(conn: Connection, column: str, steps: int) -> list[int]:
    counts = ", ".join(f"count(*) FILTER (WHERE {column} >= {step})" for step in range(1, steps + 1))
    row = conn.execute(f"SELECT {counts} FROM metrics.steps".encode()).fetchone()
    assert row is not None
    return list(row)


def check_shop(conn: Connection, url: str) -> None:
    assert figures(conn) == SHOP_FIGURES
    assert (funnel(conn, "paid", 3), funnel(conn, "paid_after_looking", 4)) == SHOP_FUNNELS
    row = conn.execute("SELECT count(DISTINCT day), sum(events), count(DISTINCT action) FROM metrics.daily").fetchone()
    assert row == (181, 32_283, 12)
    assert wrong(url, PROJECT) == {}


def check_cdnow(conn: Connection, url: str) -> None:
    assert figures(conn) == CDNOW_FIGURES
    repeated = conn.execute("SELECT count(*) - count(DISTINCT (user_id, ts, metadata)) FROM refold.events").fetchone()
    assert repeated == (CDNOW_REPEATED,)
    assert wrong(url, PROJECT) == {}


def numbered(path: Path, heading: str, lines: Sequence[str], separator: str) -> None:
    """Writes a file of which every line names itself."""
    rows = [f"row{separator}{heading}", *lines]
    path.write_text("\n".join(rows) + "\n")


def overlapping(lines: list[str], separator: str) -> list[list[str]]:
    """Eight parts that share half their lines with the next one, each in an order of its own."""
    named = [f"line-{number}{separator}{line}" for number, line in enumerate(lines)]
    chance = random.Random(7)
    chance.shuffle(named)
    parts = [named[part::8] + named[(part + 1) % 8 :: 16] for part in range(8)]
    for part in parts:
        chance.shuffle(part)
    return parts


@pytest.mark.slow
def test_the_shop_fed_twice(shop: Path, database_url: str, conn: Connection) -> None:
    conn.autocommit = True
    make_live(database_url, PROJECT)
    arguments = (shop, "--map", SHOP_MAP, "--id-from", "row", *SHOP)
    assert told([refold(database_url, *arguments)]) == {
        "received": 32_283,
        "stored": 32_283,
        "duplicates": 0,
        "rejected": 0,
    }
    drain(database_url)
    check_shop(conn, database_url)
    assert told([refold(database_url, *arguments)]) == {
        "received": 32_283,
        "stored": 0,
        "duplicates": 32_283,
        "rejected": 0,
    }
    drain(database_url)
    check_shop(conn, database_url)


@pytest.mark.exhaustive
def test_the_shop_shuffled_from_eight_processes_at_once(
    shop: Path, database_url: str, conn: Connection, tmp_path: Path
) -> None:
    conn.autocommit = True
    heading, *lines = shop.read_text().splitlines()
    processes = []
    parts = overlapping(lines, ",")
    for number, part in enumerate(parts):
        numbered(tmp_path / f"part{number}.csv", heading, part, ",")
        processes.append(
            refold(
                database_url, tmp_path / f"part{number}.csv", "--map", f"id=row,{SHOP_MAP}", "--batch", "3000", *SHOP
            )
        )
    fed = sum(map(len, parts))
    assert told(processes) == {"received": fed, "stored": 32_283, "duplicates": fed - 32_283, "rejected": 0}
    make_live(database_url, PROJECT)
    check_shop(conn, database_url)


@pytest.mark.slow
def test_cdnow_fed_twice(cdnow: Path, database_url: str, conn: Connection, tmp_path: Path) -> None:
    conn.autocommit = True
    arguments = (cdnow, "--map", CDNOW_MAP, "--id-from", "row", *CDNOW)
    assert told([refold(database_url, *arguments)]) == {
        "received": 69_659,
        "stored": 69_659,
        "duplicates": 0,
        "rejected": 0,
    }
    make_live(database_url, PROJECT)
    check_cdnow(conn, database_url)
    (tmp_path / "CDNOW_master.txt").write_bytes(gzip.decompress(cdnow.read_bytes()))
    # Unpacked it is the same source.
    again = told([refold(database_url, tmp_path / "CDNOW_master.txt", *arguments[1:])])
    assert again == {"received": 69_659, "stored": 0, "duplicates": 69_659, "rejected": 0}
    drain(database_url)
    check_cdnow(conn, database_url)


@pytest.mark.exhaustive
def test_cdnow_shuffled_from_eight_processes_at_once(
    cdnow: Path, database_url: str, conn: Connection, tmp_path: Path
) -> None:
    conn.autocommit = True
    make_live(database_url, PROJECT)
    with gzip.open(cdnow, "rt") as file:
        heading, *lines = file.read().splitlines()
    processes = []
    parts = overlapping(lines, " ")
    for number, part in enumerate(parts):
        numbered(tmp_path / f"part{number}.csv", heading, part, " ")
        processes.append(refold(database_url, tmp_path / f"part{number}.csv", "--map", f"id=row,{CDNOW_MAP}", *CDNOW))
    fed = sum(map(len, parts))
    assert told(processes) == {"received": fed, "stored": 69_659, "duplicates": fed - 69_659, "rejected": 0}
    drain(database_url)
    check_cdnow(conn, database_url)
