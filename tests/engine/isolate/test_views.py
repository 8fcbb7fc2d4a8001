"""What fails in a metric's view fails when a row is written, for the event that causes it and for nobody who looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.release import release
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.projection.query import analyse
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import find as letters
from tests.support.law import worker_connection
from tests.support.live import drain, make_live
from tests.support.making import events
from tests.support.tampering import unguarded

A = "(metadata->>'a')::numeric"
B = "(metadata->>'b')::numeric"
MERGE = f"SELECT user_id, sum({A}) / sum({B}) AS ratio, count(*) AS events FROM events GROUP BY user_id"
MEMBERS = (
    f"SELECT user_id, 10 / (count(DISTINCT {B}) - 2) AS ratio, count(*) AS events"
    " FROM events WHERE action = 'view' GROUP BY user_id"
)
FILTERED = (
    f"SELECT user_id, sum({A}) / sum({B}) AS ratio, count(*) AS events FROM events"
    f" GROUP BY user_id HAVING sum({B}) <> 0"
)
FAILING_HAVING = f"SELECT user_id, count(*) AS events FROM events GROUP BY user_id HAVING sum({A}) / sum({B}) > 0"


@dataclass
class Shop:
    """A database with projections of whose views some may fail.

    Args:
        url: where it is.
        folder: the projections.
        admin: a superuser's connection.
        worker: a worker's connection.
    """

    url: str
    folder: Path
    admin: psycopg.Connection[Any]
    worker: psycopg.Connection[Any]

    def deploy(self, **queries: str) -> None:
        for name, query in queries.items():
            (self.folder / f"{name}.sql").write_text(query)
        make_live(self.url, self.folder)

    def sell(self, *pairs: tuple[int, int], prefix: str = "e") -> None:
        """Appends events of one user, with two numbers each; they are read one after the other's commit."""
        batch = events(len(pairs), prefix, user_id="ann", action="view")
        for event, (a, b) in zip(batch, pairs, strict=True):
            event["metadata"] = {"a": a, "b": b}
        with psycopg.connect(self.url) as conn:
            append(conn, batch)

    def drain(self) -> None:
        drain(self.url, self.folder)

    def shown(self, name: str = "r") -> list[tuple[Any, ...]]:
        """What an analyst sees."""
        with psycopg.connect(self.url) as conn:
            conn.execute("SET ROLE refold_analyst")
            return conn.execute(f"SELECT * FROM metrics.{name}".encode()).fetchall()

    def waiting(self, name: str = "r") -> list[str]:
        found = letters(self.worker, "d.state = 'waiting' AND b.state = 'live' AND b.projection = %s", name)
        return [letter.event_id for letter in found]


@pytest.fixture
def shop(database_url: str, admin: psycopg.Connection[Any], tmp_path: Path) -> Iterator[Shop]:
    with worker_connection(database_url) as worker:
        yield Shop(database_url, tmp_path, admin, worker)


def test_an_event_that_would_break_the_view_is_quarantined(shop: Shop) -> None:
    shop.deploy(r=MERGE)
    shop.sell((6, 0))
    shop.drain()
    assert shop.shown() == []
    shop.sell((6, 2), prefix="f")
    shop.drain()
    assert shop.shown() == [("ann", Decimal(3), 1)]
    assert shop.waiting() == ["e0"]
    assert reconcile(shop.worker, shop.folder).drift == 0


def test_a_part_of_a_sum_that_would_break_the_view_alone_is_no_reason(shop: Shop) -> None:
    """An upsert looks at the row that is proposed, too: with a generated column or a CHECK this event would fail."""
    shop.deploy(r=MERGE)
    shop.sell((6, 2))
    shop.drain()
    shop.sell((6, 0), prefix="f")
    shop.drain()
    assert shop.shown() == [("ann", Decimal(6), 2)]
    assert shop.waiting() == []


def test_what_kept_and_new_make_together_is_looked_at(shop: Shop) -> None:
    shop.deploy(r=MERGE)
    shop.sell((6, 2))
    shop.drain()
    shop.sell((6, -2), prefix="f")
    shop.drain()
    assert shop.shown() == [("ann", Decimal(3), 1)]
    assert shop.waiting() == ["f0"]


def test_the_first_load_and_a_rebuild_find_it_too(shop: Shop) -> None:
    shop.sell((6, 0))
    shop.deploy(r=MERGE)
    assert shop.waiting() == ["e0"]
    assert shop.shown() == []
    rebuild(shop.worker, shop.folder, ["r"], lambda progress: None)
    assert shop.waiting() == ["e0"]
    assert reconcile(shop.worker, shop.folder).drift == 0


def test_members_are_looked_at_when_they_are_counted(shop: Shop) -> None:
    shop.deploy(r=MEMBERS)
    shop.sell((0, 1), (0, 1))
    shop.drain()
    shop.sell((0, 2), prefix="f")
    shop.drain()
    assert shop.shown() == [("ann", -10, 2)]
    assert shop.waiting() == ["f0"]


def test_members_are_looked_at_in_a_load(shop: Shop) -> None:
    shop.sell((0, 1))
    shop.deploy(r=MEMBERS.replace("- 2", "- 1"))
    assert shop.shown() == []
    assert shop.waiting() == ["e0"]


def test_what_having_leaves_out_is_not_evaluated(shop: Shop) -> None:
    shop.deploy(r=FILTERED)
    shop.sell((6, 0))
    shop.drain()
    assert shop.shown() == []
    assert shop.waiting() == []
    shop.sell((6, 2), prefix="f")
    shop.drain()
    assert shop.shown() == [("ann", Decimal(6), 2)]


def test_an_analysts_condition_does_not_come_before_having(shop: Shop) -> None:
    shop.deploy(r=FILTERED)
    shop.sell((6, 0))
    shop.drain()
    # Cheap, so Postgres would begin with it.
    assert shop.admin.execute("SELECT * FROM metrics.r WHERE ratio > 1").fetchall() == []


def test_having_is_looked_at(shop: Shop) -> None:
    shop.deploy(r=FAILING_HAVING)
    shop.sell((6, 0))
    shop.drain()
    assert shop.shown() == []
    assert shop.waiting() == ["e0"]


def test_releasing_it_too_early_fails_again_and_later_succeeds(shop: Shop) -> None:
    shop.deploy(r=MERGE)
    shop.sell((6, 0))
    shop.drain()
    compiler = Compiler(shop.folder)
    [letter] = letters(shop.worker)
    assert release(shop.worker, compiler, letter).answer == "failed"
    shop.sell((6, 2), prefix="f")
    shop.drain()
    assert release(shop.worker, compiler, letter).answer == "released"
    assert shop.shown() == [("ann", Decimal(6), 2)]


def test_an_audit_reads_through_the_view_and_healing_sets_the_event_aside(shop: Shop) -> None:
    """An event that is another one behind the cursor: healing must not write a row that nobody can read."""
    shop.deploy(r=MERGE)
    shop.sell((6, 2), (1, 1))
    shop.drain()
    with unguarded(shop.admin):
        shop.admin.execute("""UPDATE refold.events SET metadata = '{"a": 1, "b": -2}' WHERE event_id = 'e1'""")
        # The ledger with it: else it would be a damaged log, from which nothing is healed.
        shop.admin.execute(
            "UPDATE refold.event_ids AS i SET digest = refold.digest(e.user_id, e.action, e.ts, e.metadata, e.version)"
            " FROM refold.events AS e WHERE e.event_id = i.event_id"
        )
    shop.admin.execute("UPDATE refold_builds." + table(shop) + " SET events = 7")
    reconcile(shop.worker, shop.folder, depth="slice")
    assert shop.shown() == [("ann", Decimal(3), 1)]
    assert shop.waiting() == ["e1"]


def table(shop: Shop) -> str:
    row = shop.admin.execute("SELECT table_name FROM refold.builds WHERE state = 'live'").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(
    "output",
    [
        "count(*) AS x",
        f"avg({A}) AS x",
        f"coalesce(max({A}), 0) AS x",
        "count(*) > 1 AND bool_or(version > 1) AS x",
        "CASE WHEN count(*) > 1 THEN max(ts) END AS x",
    ],
)
def test_what_cannot_fail_costs_a_page_nothing(output: str) -> None:
    plan = analyse("metric", f"SELECT user_id, {output} FROM events GROUP BY user_id", {"events": LOG_COLUMNS})
    assert plan.evaluated is None


@pytest.mark.parametrize(
    "output", [f"sqrt(sum({A})) AS x", f"sum({A})::integer AS x", f"sum({A}) * 2 AS x", "max(ts) - min(ts) AS x"]
)
def test_what_may_fail_is_evaluated(output: str) -> None:
    plan = analyse("metric", f"SELECT user_id, {output} FROM events GROUP BY user_id", {"events": LOG_COLUMNS})
    assert plan.evaluated is not None
