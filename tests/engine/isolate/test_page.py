"""Fault 18: an event that makes one projection fail is quarantined for that one alone; the page goes on."""

from __future__ import annotations

import signal

import psycopg
import pytest

from refold.engine.apply.page import CAREFUL, apply_next_page, apply_page
from refold.errors import BuildError
from refold.postgres.failpoints import PAGE_POINTS
from refold.store.builds.build import by_id, lock
from refold.store.incidents import find as incidents
from tests.support.live import make_live
from tests.support.processes import worker

from .prices import FAILING, FOLDER, Prices


def test_the_others_are_applied_and_the_others_never_notice(prices: Prices) -> None:
    prices.sell(50, free=(7, 8, 30))
    prices.drain()
    assert prices.waiting() == sorted((name, f"e{at}") for name in FAILING for at in (7, 8, 30))
    counted = "SELECT sum(events)::integer FROM metrics.{}"
    for name, expected in (("daily", 50), ("sums", 47), ("by_user", 47), ("grades", 47)):
        assert prices.admin.execute(counted.format(name).encode()).fetchone() == (expected,)
    # Known to be missing: that is no drift.
    report = prices.reconcile()
    assert (report.drift, report.skipped) == (0, [])
    assert len(report.audited) == 9


def test_what_is_kept_of_it(prices: Prices) -> None:
    prices.sell(5, free=(2,))
    prices.drain()
    by_name = {letter.projection: letter for letter in prices.letters()}
    sql, python = by_name["paid"], by_name["graded"]
    assert (sql.sqlstate, sql.attempts, sql.state) == ("22P02", 1, "waiting")
    assert sql.error == 'invalid input syntax for type numeric: "free"'
    assert sql.traceback is None
    assert python.sqlstate is None
    assert python.error.startswith("InvalidOperation")
    assert python.traceback is not None
    assert "Decimal(str(price))" in python.traceback
    event = prices.admin.execute("SELECT txid::text::bigint, position FROM refold.events WHERE event_id = 'e2'")
    assert event.fetchone() == (sql.txid, sql.position) == (python.txid, python.position)
    assert prices.build("paid").dead_letters == 1
    assert prices.build("daily").dead_letters == 0
    shown = prices.admin.execute("SELECT metric FROM metrics.freshness WHERE dead_letters = 1 ORDER BY 1").fetchall()
    assert [metric for (metric,) in shown] == list(FAILING)


def test_an_incident_is_open_while_one_waits(prices: Prices) -> None:
    prices.sell(5, free=(2,))
    prices.drain()
    table = prices.build("paid").table_name
    [incident] = incidents(prices.worker, "i.subject = %s", table)
    assert (incident.kind, incident.resolved_at) == ("dead_letters", None)
    assert incident.evidence["waiting"] == 1
    assert "free" in incident.evidence["error"]


def test_a_later_event_of_the_same_key_leaves_it_out_too(prices: Prices) -> None:
    """Recompute evaluates all events of a key again."""
    prices.sell(6, free=(0,))
    prices.apply("dearest")
    prices.sell(6, "later")
    prices.apply("dearest")
    assert [letter.attempts for letter in prices.letters()] == [1]
    prices.drain()
    assert prices.reconcile().drift == 0


def test_a_page_without_such_events_costs_no_more(prices: Prices) -> None:
    """No savepoint, and nobody asks for dead letters."""
    prices.sell(5)
    compiled = prices.compiler.of(prices.worker, prices.build("sums"))
    read = "SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_xact_user_tables WHERE relname = %s"
    with prices.worker.transaction():
        build = lock(prices.worker, compiled.build_id)
        assert build is not None
        before = prices.worker.execute(read, ("dead_letters",)).fetchone()
        assert apply_page(prices.worker, compiled, build, 100).events == 5
        assert prices.worker.execute(read, ("dead_letters",)).fetchone() == before


@pytest.mark.parametrize("name", FAILING)
def test_many_failures_in_a_row_are_not_planned_anew(prices: Prices, name: str) -> None:
    """Over 700 segments a plan takes a second; psycopg numbers the statements that it prepares."""
    prices.sell(60, free=tuple(range(60)))
    last = "SELECT coalesce(max(substring(name from '[0-9]+$')::integer), 0) FROM pg_prepared_statements"
    prices.apply(name)
    [before] = prices.worker.execute(last).fetchone() or [0]
    prices.sell(60, "later", free=tuple(range(60)))
    prices.apply(name)
    [after] = prices.worker.execute(last).fetchone() or [0]
    assert len(prices.waiting()) == 120
    assert after - before < 15


def test_more_than_the_bound_fail_the_build_and_no_other(prices: Prices) -> None:
    prices.admin.execute("UPDATE refold.settings SET max_dead_letters = 3, too_many_dead_letters = 'stop'")
    prices.sell(20, free=(1, 4, 6, 15))
    compiled = prices.compiler.of(prices.worker, prices.build("sums"))
    before = prices.build("sums").cursor
    with pytest.raises(BuildError, match="too many events fail; the last error is invalid input syntax"):
        apply_next_page(prices.worker, compiled, 100)
    assert prices.letters() == []
    assert prices.build("sums").cursor == before
    prices.apply("daily")
    assert prices.admin.execute("SELECT sum(events)::integer FROM metrics.daily").fetchone() == (20,)


def test_a_share_of_a_page_is_too_much_as_well(prices: Prices) -> None:
    prices.admin.execute("UPDATE refold.settings SET dead_letter_share = 0.2, too_many_dead_letters = 'stop'")
    prices.sell(100, free=tuple(range(0, 100, 4)))
    compiled = prices.compiler.of(prices.worker, prices.build("paid"))
    with pytest.raises(BuildError, match="too many"):
        apply_next_page(prices.worker, compiled, 100)
    assert prices.letters() == []


def test_a_failed_build_goes_on_by_itself_when_the_cause_is_gone(prices: Prices) -> None:
    prices.admin.execute("UPDATE refold.settings SET max_dead_letters = 0, too_many_dead_letters = 'stop'")
    prices.sell(20, free=(1,))
    compiled = prices.compiler.of(prices.worker, prices.build("sums"))
    with pytest.raises(BuildError):
        apply_next_page(prices.worker, compiled, 100)
    prices.mend()
    prices.apply(*FAILING, "daily", "by_user", "grades", "history")
    assert prices.wrong() == {}
    assert prices.letters() == []


def test_an_error_that_no_event_causes_is_the_builds(prices: Prices) -> None:
    prices.sell(5)
    compiled = prices.compiler.of(prices.worker, prices.build("sums"))
    prices.admin.execute("ALTER FUNCTION public.price(text) RENAME TO cost")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        apply_next_page(prices.worker, compiled, 100)
    assert prices.letters() == []


def test_pages_of_any_size_find_the_same(prices: Prices) -> None:
    prices.sell(40, free=(0, 1, 19, 20, 39))
    for limit, name in zip((1, 2, 7, 39, CAREFUL), FAILING, strict=True):
        prices.apply(name, limit=limit)
    assert prices.waiting() == sorted((name, f"e{at}") for name in FAILING for at in (0, 1, 19, 20, 39))


@pytest.mark.slow
@pytest.mark.parametrize("point", PAGE_POINTS)
def test_a_worker_killed_at_any_step_leaves_one_letter_each(prices: Prices, point: str) -> None:
    prices.sell(20, free=(3, 11))
    with worker(prices.url, FOLDER, env={"REFOLD_CRASH_AT": f"{point}:2"}) as process:
        assert process.wait(60) == -signal.SIGKILL, process.communicate()[1]
    prices.drain()
    assert prices.waiting() == sorted((name, f"e{at}") for name in FAILING for at in (3, 11))
    assert {letter.attempts for letter in prices.letters()} == {1}
    assert all(by_id(prices.worker, letter.build_id).dead_letters == 2 for letter in prices.letters())
    assert prices.reconcile().drift == 0


@pytest.mark.slow
def test_a_first_load_and_a_rebuild_quarantine_too(shop: Prices) -> None:
    shop.sell(60, free=(0, 31, 59))
    make_live(shop.url, FOLDER)
    assert shop.waiting() == sorted((name, f"e{at}") for name in FAILING for at in (0, 31, 59))
    assert shop.reconcile().drift == 0
    shop.sell(10, "later", free=(5,))
    shop.drain()
    assert shop.reconcile().drift == 0
    assert len(shop.waiting()) == 4 * len(FAILING)


def test_a_first_load_of_nothing_but_such_events_fails(shop: Prices) -> None:
    shop.admin.execute("UPDATE refold.settings SET max_dead_letters = 5, too_many_dead_letters = 'stop'")
    shop.sell(20, free=tuple(range(20)))
    with pytest.raises(BuildError, match="too many events fail"):
        make_live(shop.url, FOLDER)
    assert shop.letters() == []
