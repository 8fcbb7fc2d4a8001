"""Funnels that are kept in their row: what a page costs does not depend on what its keys have done before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import deploy
from refold.engine.reconcile import reconcile
from refold.model.projection.definition import _analysed, load_directory
from refold.postgres.connect import connect
from refold.postgres.session import PAGES
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from tests.support.explained import Plan, explained
from tests.support.live import drain, make_live, wrong
from tests.support.making import MONDAY_MS

LEVELS = """
    SELECT user_id,
           window_funnel(interval '1 hour', ts, action = 'view', action = 'cart', action = 'purchase') AS level,
           window_funnel_times(interval '1 hour', ts, action = 'view', action = 'cart', action = 'purchase') AS times,
           window_funnel(interval '1 day', ts, action IN ('view', 'cart'), action IN ('cart', 'view'),
                         action = 'purchase', action = 'view') AS either,
           count(*) AS events, min(ts) AS first, bool_or(action = 'cart') AS put
    FROM events
    WHERE action <> 'noise'
    GROUP BY user_id
"""
ALONE = """
    SELECT user_id, window_funnel(NULL, ts, action = 'view', action = 'purchase', action = 'view') AS level
    FROM events GROUP BY user_id
"""
HISTORY = 2000
"""Events of the user who never stops."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "levels.sql").write_text(LEVELS)
    (tmp_path / "alone.sql").write_text(ALONE)
    return tmp_path


def doings(
    ids: Sequence[int], seconds: Sequence[float], user: str | None = "bot", action: str = "view"
) -> list[dict[str, Any]]:
    return [
        {"id": f"e{number}", "user_id": user, "action": action, "ts": MONDAY_MS + int(second * 1000)}
        for number, second in zip(ids, seconds, strict=True)
    ]


def pages(url: str, folder: Path, projection: str) -> list[Plan]:
    """The plans of the statement that applies the next page of a projection."""
    with connect(url, autocommit=True, settings=PAGES) as conn:
        build = live(conn, projection)
        assert build is not None
        compiled = Compiler(folder).of(conn, build)
        conn.execute("SELECT 1")
        with explained(conn) as plans:
            apply_next_page(conn, compiled, 1000)
        return [plan for plan in plans if "INSERT INTO refold_builds" in plan.query]


def events_read(url: str, folder: Path, projection: str) -> int:
    """How many events its next page reads by their key."""
    [page] = pages(url, folder, projection)
    return sum(
        int(node["Actual Rows"] * node["Actual Loops"])
        for node in page.nodes("events_")
        if node.get("Index Name", "").startswith("key_")
    )


def test_a_page_of_a_key_with_a_long_history_reads_none_of_it(
    database_url: str, conn: psycopg.Connection, folder: Path
) -> None:
    append(conn, doings(range(HISTORY), range(HISTORY)))
    conn.commit()
    make_live(database_url, folder)
    append(conn, doings([HISTORY], [HISTORY - 0.5]))
    append(conn, doings([HISTORY + 1], [HISTORY - 0.5], user="somebody"))
    conn.commit()
    for projection in ("levels", "alone"):
        assert events_read(database_url, folder, projection) == 0
    assert wrong(database_url, folder, {}) == {}


def test_what_comes_very_late_is_worth_reading_it(database_url: str, conn: psycopg.Connection, folder: Path) -> None:
    append(conn, doings(range(HISTORY), range(HISTORY)))
    conn.commit()
    make_live(database_url, folder)
    append(conn, doings([HISTORY], [5.5], action="cart"))
    append(conn, doings([HISTORY + 1], [5.6], action="cart", user="somebody"))
    conn.commit()
    # That funnel has no such step.
    assert events_read(database_url, folder, "alone") == 0
    assert events_read(database_url, folder, "levels") >= HISTORY
    drain(database_url, folder)
    assert wrong(database_url, folder, {}) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_in_whatever_order(database_url: str, conn: psycopg.Connection, folder: Path, seed: int) -> None:
    """Two users with long histories and some with short ones; late events, ties, and pages of all sizes."""
    chance = random.Random(seed)
    make_live(database_url, folder)
    number = 0
    for at in range(8):
        page: list[dict[str, Any]] = []
        for _ in range(chance.choice([1, 3, 30, 80])):
            late = chance.choice([0, 0, 0, 1, 20, 5000]) if seed % 2 else 0
            second = max(0, at * 900 + chance.randrange(900) - late) // chance.choice([1, 60])
            user = chance.choice(["bot", "bot", None, f"u{chance.randrange(9)}"])
            action = chance.choice(["view", "view", "cart", "noise", "purchase" if seed % 3 else "view"])
            page += doings([number], [second], user, action)
            number += 1
        append(conn, page)
        conn.commit()
        drain(database_url, folder)
        assert wrong(database_url, folder, {}) == {}
    with connect(database_url, "refold_worker", autocommit=True) as worker:
        # What is kept, too, is what the log says.
        assert reconcile(worker, folder, depth="quick").clean
        assert reconcile(worker, folder).clean


def test_a_state_that_somebody_changed_is_healed(database_url: str, conn: psycopg.Connection, folder: Path) -> None:
    append(conn, doings(range(100), range(100)))
    conn.commit()
    tables = make_live(database_url, folder)
    conn.execute(f"UPDATE {tables['alone']} SET level__state = '\\x02ff', level = 2".encode())
    conn.commit()
    assert set(wrong(database_url, folder, {})) == {"alone"}
    with connect(database_url, "refold_worker", autocommit=True) as worker:
        report = reconcile(worker, folder)
        assert [(finding.projection, finding.kind) for finding in report.findings] == [("alone", "drifted")]
        assert reconcile(worker, folder).clean
    assert wrong(database_url, folder, {}) == {}


def test_a_build_that_was_made_to_be_recomputed_stays_so_until_the_next_deploy(
    database_url: str, conn: psycopg.Connection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "levels.sql").unlink()
    with monkeypatch.context() as earlier:
        earlier.setattr("refold.model.projection.query._Analysis._funnel", lambda *_: None)
        append(conn, doings(range(100), range(100)))
        conn.commit()
        make_live(database_url, folder)
    # What was made stays so in the processes that come after this one, which know better.
    monkeypatch.setattr("refold.model.projection.definition._analysed", _analysed.__wrapped__)
    append(conn, doings([100], [100], action="purchase"))
    conn.commit()
    drain(database_url, folder)
    assert wrong(database_url, folder, {}) == {}
    with connect(database_url, "refold_worker", autocommit=True) as worker:
        build = live(worker, "alone")
        assert build is not None and build.upkeep == "recompute"
        deploy(worker, folder, load_directory(folder), lambda progress: None)
        build = live(worker, "alone")
        assert build is not None and build.upkeep == "funnel"
    assert wrong(database_url, folder, {}) == {}
