"""Healing where events fail that a build has passed: damaged rows, and events that came behind its cursor."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.engine.reconcile import reconcile
from refold.engine.reconcile.release import release
from refold.store.builds.build import by_id
from refold.store.builds.compiled import Compiler
from tests.support.live import wrong
from tests.support.tampering import bring_late

from .prices import FAILING, FOLDER, LENIENT, Prices

RAW = "SELECT event_id, user_id, ts, metadata ->> 'price' AS price FROM events"
READERS = {
    "merge": "SELECT user_id, sum(public.price(price)) AS total FROM raw GROUP BY user_id",
    "key": "SELECT public.price(price) AS worth, count(*) AS events FROM raw GROUP BY worth",
    "members": "SELECT public.price(price) AS worth, count(DISTINCT user_id) AS users FROM raw GROUP BY worth",
    "recompute": "SELECT user_id, array_agg(public.price(price) ORDER BY ts, event_id) AS p FROM raw GROUP BY user_id",
    "funnel": "SELECT user_id, window_funnel(NULL, ts, public.price(price) > 0, public.price(price) > 1) AS level,"
    " count(*) AS events FROM raw GROUP BY user_id",
    "facts": "SELECT event_id, public.price(price) AS worth FROM raw",
}


def damage(shop: Prices, event: str, price: str) -> None:
    table = shop.build("raw").table_name
    changed = shop.worker.execute(
        f"UPDATE refold_builds.{table} SET price = '{price}' WHERE event_id = '{event}'".encode()
    )
    assert changed.rowcount == 1


def test_a_damaged_row_that_its_reader_cannot_process_is_healed(shop: Prices, tmp_path: Path) -> None:
    """To find what the reader must have again its key is evaluated for the row as it stands; there it fails."""
    (tmp_path / "raw.sql").write_text(RAW)
    (tmp_path / "reader.sql").write_text(READERS["key"])
    shop.sell(10)
    shop.deploy(tmp_path)
    damage(shop, "e3", "free")
    damage(shop, "e4", "19")
    report = reconcile(shop.worker, tmp_path, depth="slice")
    assert (report.skipped, {name for name, *_ in report.counts}) == ([], {"raw"})
    assert wrong(shop.url, tmp_path, {}) == {}
    assert reconcile(shop.worker, tmp_path).clean


@pytest.mark.parametrize("kind", READERS)
def test_a_row_that_had_been_made_harmless(shop: Prices, tmp_path: Path, kind: str) -> None:
    """Its readers had folded it; now that it is itself again they have to leave it out, and tell so."""
    (tmp_path / "raw.sql").write_text(RAW)
    (tmp_path / "reader.sql").write_text(READERS[kind])
    shop.deploy(tmp_path)
    compiler = Compiler(tmp_path)
    shop.sell(10, free=(3, 8))
    shop.apply("raw")
    damage(shop, "e3", "5")
    damage(shop, "e8", "6")
    shop.apply("reader")
    assert shop.waiting() == []
    report = reconcile(shop.worker, tmp_path, depth="slice")
    assert (report.skipped, {name for name, *_ in report.counts}) == ([], {"raw", "reader"})
    assert report.checksums == []
    assert shop.waiting() == [("reader", "e3"), ("reader", "e8")]
    assert reconcile(shop.worker, tmp_path, depth="quick").clean
    assert reconcile(shop.worker, tmp_path).clean
    # And they can be had when somebody has mended the function.
    shop.admin.execute(LENIENT)
    for letter in shop.letters("d.state = 'waiting'"):
        assert release(shop.worker, compiler, letter).answer == "released"
    assert wrong(shop.url, tmp_path, {}) == {}
    assert reconcile(shop.worker, tmp_path, depth="quick").clean
    assert reconcile(shop.worker, tmp_path).clean


def test_events_behind_the_cursor_that_fail(prices: Prices) -> None:
    """Who can process them gets them; the others have dead letters, as if they had come in time."""
    prices.sell(6)
    prices.drain()
    bring_late(
        prices.admin,
        "SELECT txid, 'late' || event_id, user_id, action, ts,"
        "        CASE event_id WHEN 'e4' THEN metadata ELSE '{\"price\": \"free\"}' END"
        " FROM refold.events WHERE event_id IN ('e2', 'e4', 'e5')",
    )
    report = reconcile(prices.worker, FOLDER, depth="slice")
    assert report.skipped == []
    on_the_log = [name for name in FAILING if by_id(prices.worker, prices.build(name).build_id).upstream_id is None]
    assert prices.waiting() == sorted((name, letter) for name in on_the_log for letter in ("latee2", "latee5"))
    assert reconcile(prices.worker, FOLDER, depth="quick").clean
    assert reconcile(prices.worker, FOLDER).clean
    prices.admin.execute(LENIENT)
    prices.environment.setenv("REFOLD_TEST_MENDED", "1")
    for letter in prices.letters("d.state = 'waiting'"):
        assert release(prices.worker, prices.compiler, letter).answer == "released"
    assert prices.wrong() == {}
    assert reconcile(prices.worker, FOLDER, depth="quick").clean


def test_more_than_there_may_be_are_no_poison(shop: Prices, tmp_path: Path) -> None:
    """Then it is the projection that is broken: the healing fails, and leaves all as it was."""
    (tmp_path / "raw.sql").write_text(RAW)
    (tmp_path / "reader.sql").write_text(READERS["merge"])
    shop.deploy(tmp_path)
    shop.sell(10, free=(3,))
    shop.apply("raw")
    damage(shop, "e3", "5")
    shop.apply("reader")
    shop.admin.execute("UPDATE refold.settings SET max_dead_letters = 0, too_many_dead_letters = 'stop'")
    report = reconcile(shop.worker, tmp_path, depth="slice")
    assert report.drift == 0 and "too many events fail" in report.skipped[0][1]
    assert shop.waiting() == []


@pytest.mark.parametrize("kind", READERS)
def test_a_row_that_had_been_damaged_is_no_dead_letter_when_it_is_healed(
    shop: Prices, tmp_path: Path, kind: str
) -> None:
    """Its reader failed for what somebody had put there; nobody else would try it again."""
    (tmp_path / "raw.sql").write_text(RAW)
    (tmp_path / "reader.sql").write_text(READERS[kind])
    shop.deploy(tmp_path)
    shop.sell(10, free=(5,))
    shop.apply("raw")
    damage(shop, "e3", "free")
    damage(shop, "e8", "free")
    shop.compiler = Compiler(tmp_path)
    shop.apply("reader")
    assert shop.waiting() == [("reader", "e3"), ("reader", "e5"), ("reader", "e8")]
    report = reconcile(shop.worker, tmp_path, depth="slice")
    assert report.skipped == []
    assert shop.waiting() == [("reader", "e5")]
    assert reconcile(shop.worker, tmp_path, depth="quick").clean
    assert reconcile(shop.worker, tmp_path).clean
    assert shop.build("reader").dead_letters == 1


def test_a_function_that_fails_in_the_middle_of_a_slice(prices: Prices) -> None:
    """The slice is read in portions, by a cursor that must not outlive the failure: hundreds of events follow."""
    prices.mend()
    prices.sell(300, free=(3, 5, 7, 9))
    prices.drain()
    prices.environment.delenv("REFOLD_TEST_MENDED")
    prices.admin.execute(
        f"DELETE FROM refold_builds.{prices.build('graded').table_name} WHERE event_id = 'e1'".encode()
    )
    report = reconcile(prices.worker, FOLDER, depth="slice")
    assert (report.skipped, report.unhealed) == ([], [])
    assert prices.waiting() == [("graded", f"e{number}") for number in (3, 5, 7, 9)]
    assert reconcile(prices.worker, FOLDER).clean
