"""An event that was lost on its way into a metric, or came twice: nobody has touched a row, and the audit finds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold.engine.apply.page import write_read
from refold.engine.reconcile.reconcile import Depth, reconcile
from refold.model.stream.cursor import EMPTY, LAST_ORDINAL, Key, Read
from refold.model.stream.slices import POSITION_BITS
from refold.service.duties.audits import quick_audit
from refold.store import incidents
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from refold.store.log.seal import seal
from tests.support.live import SHOP
from tests.support.making import MONDAY_MS
from tests.support.reconcile_shop import Shop, shopping
from tests.support.tampering import bring_late, tamper
from tests.support.waiting import wait_until

pytestmark = pytest.mark.live("shop")

ON_THE_LOG = ["daily", "graded", "paths", "purchases"]
FIRST = "positions 0 to 16,383"


@pytest.fixture
def late(shop: Shop, connect: Callable[..., psycopg.Connection[Any]]) -> Callable[[], None]:
    """Brings an event behind every cursor, as a transaction would whose commit came after a reader had passed it."""

    def bring() -> None:
        owner = connect(autocommit=True)
        bring_late(
            owner, "SELECT txid, 'late', 'u1', 'purchase', ts, metadata FROM refold.events WHERE event_id = 'e002'"
        )

    return bring


@pytest.fixture
def twice(shop: Shop) -> Callable[[], None]:
    """Lets a metric count the last two events once more. (A fact's row, or a recomputed one, is there only once.)"""

    def again() -> None:
        build = live(shop.worker, "daily")
        assert build is not None
        with shop.worker.transaction():
            found = shop.worker.execute(
                "SELECT txid::text::bigint, position FROM refold.events"
                " ORDER BY txid DESC, position DESC OFFSET 2 LIMIT 1"
            ).fetchone()
            assert found is not None
            read = Read(EMPTY, build.cursor.done, Key(found[0], found[1], LAST_ORDINAL), None)
            compiled = Compiler(SHOP).of(shop.worker, build)
            assert write_read(shop.worker, compiled, build, read, 10).events == 2

    return again


def said(shop: Shop, depth: Depth) -> set[tuple[str, str, int, int]]:
    """What an audit that only looks says of reads: projection, slice, read, there."""
    report = reconcile(shop.worker, SHOP, depth=depth, dry_run=True)
    return {(one.projection, one.slice, one.recorded, one.actual) for one in report.slices if one.read}


@pytest.mark.parametrize("depth", ["quick", "slice", "deep"])
def test_an_event_behind_the_cursor_is_missed_by_who_reads_the_log(
    shop: Shop, late: Callable[[], None], depth: Depth
) -> None:
    assert said(shop, depth) == set()
    late()
    assert said(shop, depth) == {(name, FIRST, 48, 49) for name in ON_THE_LOG}


@pytest.mark.parametrize("depth", ["slice", "deep"])
def test_what_was_missed_is_healed_and_taken_down_as_read(shop: Shop, late: Callable[[], None], depth: Depth) -> None:
    late()
    assert shop.wrong() != {}
    report = reconcile(shop.worker, SHOP, depth=depth)
    assert report.drift > 0
    # Set right with their stream, rows and checksums; only who counts was evaluated as a whole, and proved right.
    assert {(one.projection, one.read) for one in report.checksums} == {("totals", True)}
    assert shop.wrong() == {}
    assert reconcile(shop.worker, SHOP, depth="quick").clean
    assert reconcile(shop.worker, SHOP, depth="deep").clean
    assert {one.resolved_at is not None for one in incidents.find(shop.worker, "i.kind = 'drift'")} == {True}


def test_sealed_slices_stand_for_the_log(
    shop: Shop, late: Callable[[], None], connect: Callable[..., psycopg.Connection[Any]]
) -> None:
    late()
    owner = connect(autocommit=True)
    owner.execute("SELECT setval('refold.events_position', %s)", (1 << POSITION_BITS,))
    assert wait_until(lambda: seal(shop.worker), 60) == [0]
    shop.append(shopping(1, "next"))
    shop.drain()
    # Behind the seal nothing is read of the log: what was sealed is what a reader must have read.
    tamper(owner, "DELETE FROM refold.events WHERE event_id = 'late'")
    assert {one[0] for one in said(shop, "quick")} == set(ON_THE_LOG)
    owner.execute(
        "UPDATE refold.sealed_slices SET sealed_at = NULL, events = NULL, upto = NULL, ids = NULL, hash = NULL"
    )
    assert said(shop, "quick") == set()


def test_a_page_that_came_twice(shop: Shop, twice: Callable[[], None]) -> None:
    twice()
    assert said(shop, "quick") == {("daily", FIRST, 50, 48)}
    quick_audit(shop.worker, Compiler(SHOP))
    assert shop.wrong() == {}
    assert reconcile(shop.worker, SHOP, depth="quick").clean


def test_readers_of_a_stream_that_was_tampered_with_have_missed_nothing(shop: Shop) -> None:
    shop.tamper(
        "INSERT INTO {purchases} (txid, position, ordinal, event_id, user_id, ts, amount)"
        " SELECT txid, position, ordinal + 1, 'forged', user_id, ts, amount FROM {purchases} WHERE event_id = 'e002'"
    )
    assert said(shop, "quick") == set()
    assert reconcile(shop.worker, SHOP, depth="slice").checksums == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_row_that_was_moved_in_a_stream(shop: Shop, when: str) -> None:
    """Its readers have read it at one place or at the other, and once it is back everybody agrees."""
    move = f"UPDATE {{graded}} SET position = position + {5 << POSITION_BITS} WHERE event_id = 'm003'"
    shop.append(shopping(1, "m"))
    shop.apply("graded")
    if when == "before":
        shop.tamper(move)
    shop.drain()
    if when == "after":
        shop.tamper(move)
    quick_audit(shop.worker, Compiler(SHOP))
    assert shop.wrong() == {}
    assert reconcile(shop.worker, SHOP, depth="quick").clean
    assert {one.subject for one in incidents.find(shop.worker, "i.kind = 'drift'")} == {"graded"}


def test_a_reader_that_is_counted_as_a_whole(shop: Shop) -> None:
    """A merge says how many rows it has read, not which: all of it is evaluated again."""
    build = live(shop.worker, "totals")
    assert build is not None
    compiled = Compiler(SHOP).of(shop.worker, build)
    with shop.worker.transaction():
        read = Read(EMPTY, build.cursor.done, None, None)
        assert write_read(shop.worker, compiled, build, read, 100).events == 16
    assert said(shop, "quick") == {("totals", "all of it", 32, 16)}
    report = reconcile(shop.worker, SHOP, depth="slice")
    assert {name for name, *_ in report.counts} == {"totals"} and report.checksums == []
    assert shop.wrong() == {}
    assert reconcile(shop.worker, SHOP, depth="quick").clean


def test_a_checksum_that_is_wrong_itself_is_corrected(shop: Shop) -> None:
    shop.fold()
    shop.worker.execute("UPDATE refold.checksums SET rows = rows - 1 WHERE relation = -1")
    wrong = {name for name, *_ in said(shop, "quick")}
    assert wrong >= set(ON_THE_LOG)
    report = reconcile(shop.worker, SHOP, depth="slice")
    assert report.drift == 0
    assert {one.projection for one in report.checksums} == wrong
    assert reconcile(shop.worker, SHOP, depth="quick").clean


def test_a_dead_letter_is_known_missing(shop: Shop) -> None:
    """What a build leaves out it has not read, and nobody waits for it."""
    shop.append([{"id": "poison", "user_id": "u1", "action": "purchase", "ts": MONDAY_MS, "metadata": {"amount": "x"}}])
    shop.drain()
    left_out = shop.worker.execute("SELECT count(*) FROM refold.dead_letters").fetchone()
    assert left_out is not None and left_out[0] > 0
    assert said(shop, "quick") == set()


def test_a_log_that_is_not_sealed_for_long_is_not_read_each_time(
    shop: Shop, late: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    late()
    monkeypatch.setattr(reads, "OPEN", 0)
    assert said(shop, "quick") == set()
    monkeypatch.setattr(reads, "OPEN", 1)
    assert said(shop, "quick") != set()
