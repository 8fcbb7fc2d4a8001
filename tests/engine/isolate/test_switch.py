"""A build that goes on from another build of its stream: what only one of the two leaves out must not stay."""

from __future__ import annotations

import pytest

from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import rebuild
from refold.engine.deployment.promote import go_live
from refold.engine.deployment.rollback import rollback
from refold.store.builds.build import Build, find

from .prices import FOLDER, STRICT, Prices


def beside(prices: Prices, name: str, *, cascade: bool = False) -> dict[str, Build]:
    """Builds something anew and leaves it beside the live builds."""
    built = rebuild(prices.worker, FOLDER, [name], lambda progress: None, cascade=cascade, promote=False)
    return {build.projection: build for build in built}


def promote(prices: Prices, *names: str) -> list[Build]:
    return go_live(prices.worker, FOLDER, names, lambda progress: None)


def test_a_candidate_whose_stream_left_an_event_out_that_the_next_one_has(prices: Prices) -> None:
    prices.sell(10, free=(3,))
    prices.drain()
    first = beside(prices, "paid", cascade=True)
    prices.mend()
    beside(prices, "paid")
    promote(prices)
    assert prices.build("by_user").build_id != first["by_user"].build_id
    assert prices.build("by_user").upstream_id == prices.build("paid").build_id
    assert prices.wrong().keys().isdisjoint({"paid", "by_user"})


def test_a_candidate_whose_stream_had_an_event_that_the_next_one_leaves_out(prices: Prices) -> None:
    """Of the members too, whose sets would keep who is not there any more."""
    prices.mend()
    prices.sell(10, free=(3,))
    beside(prices, "graded", cascade=True)
    prices.environment.delenv("REFOLD_TEST_MENDED")
    prices.admin.execute(STRICT)
    beside(prices, "graded")
    promote(prices)
    prices.drain()
    assert prices.reconcile().drift == 0
    ((events,),) = prices.worker.execute("SELECT sum(events) FROM metrics.grades").fetchall()
    assert events == 9


def test_a_candidate_goes_on_from_a_stream_that_is_the_same(prices: Prices) -> None:
    prices.sell(10, free=(3,))
    prices.drain()
    first = beside(prices, "paid", cascade=True)
    prices.sell(10, "later")
    beside(prices, "paid")
    promote(prices)
    assert prices.build("by_user").build_id == first["by_user"].build_id
    prices.drain()
    assert prices.reconcile().clean


def test_a_candidate_whose_next_stream_has_lost_a_row(prices: Prices) -> None:
    """No dead letter tells; the figures of what was read do."""
    prices.sell(10)
    prices.drain()
    first = beside(prices, "paid", cascade=True)
    second = beside(prices, "paid")["paid"]
    prices.admin.execute(f"DELETE FROM refold_builds.{first['paid'].table_name} WHERE event_id = 'e4'".encode())
    prices.admin.execute(f"DELETE FROM refold_builds.{second.table_name} WHERE event_id = 'e5'".encode())
    promote(prices)
    prices.drain()
    assert prices.wrong() == {}


def test_a_candidate_that_was_changed_by_hand_is_healed_before_it_is_shown(prices: Prices) -> None:
    prices.sell(10)
    prices.drain()
    (candidate,) = beside(prices, "daily").values()
    prices.admin.execute(f"UPDATE refold_builds.{candidate.table_name} SET events = events + 1".encode())
    promote(prices, "daily")
    assert [build.build_id for build in find(prices.worker, "b.state = 'live' AND b.projection = 'daily'")] == [
        candidate.build_id
    ]
    assert prices.wrong() == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["buyers", "dearest", "graded", "paid", "sums"])
def test_a_switch_that_meets_an_event_that_fails(prices: Prices, name: str) -> None:
    """A build that was retired in the middle of a run first ends that one, and is behind after it."""
    prices.sell(10)
    old = prices.build(name)
    apply_next_page(prices.worker, prices.compiler.of(prices.worker, old), 5)
    assert prices.build(name).target is not None
    rebuild(prices.worker, FOLDER, [name], lambda progress: None)
    prices.sell(10, "later", free=(3,))
    prices.drain()
    rollback(prices.worker, FOLDER, name, lambda progress: None)
    assert prices.build(name).build_id == old.build_id
    assert (name, "later3") in prices.waiting()
    assert prices.reconcile().clean
