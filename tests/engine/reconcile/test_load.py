"""A clean pipeline reports nothing, ever: also while producers write and workers work."""

from __future__ import annotations

import threading
from typing import get_args

import pytest

from refold import Log, append
from refold.engine.apply.load import load_step
from refold.engine.reconcile import rolling
from refold.engine.reconcile.heal import heal
from refold.engine.reconcile.reconcile import Depth, reconcile
from refold.engine.recovery.coordinates import unload
from refold.errors import BuildError
from refold.postgres.connect import connect as connect_as
from refold.service.worker.loop import Worker
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from refold.store.log.append import BULK
from tests.support.at_once import at_once
from tests.support.live import SHOP
from tests.support.making import events
from tests.support.reconcile_shop import Shop

pytestmark = pytest.mark.live("shop")

ROUNDS = 6
DEPTHS: tuple[Depth, ...] = get_args(Depth)


@pytest.mark.exhaustive
def test_reconcile_under_load(shop: Shop) -> None:
    done = threading.Event()
    reports = []

    def produce(who: int) -> None:
        number = 0
        with Log(shop.url) as log, connect_as(shop.url, "refold_producer") as slow:
            while not done.is_set():
                number += 1
                append(slow, events(3, f"slow{who}-{number}-", metadata={"amount": number}))
                log.append(events(BULK if number % 5 == 0 else 4, f"quick{who}-{number}-", metadata={"amount": number}))
                if number % 3 == 0:
                    slow.rollback()
                elif number % 2 == 0:
                    slow.commit()

    def work() -> None:
        Worker(shop.url, SHOP, poll=0.01, stopped=done.is_set).run()

    def audit() -> None:
        try:
            with connect_as(shop.url, "refold_worker", autocommit=True) as conn:
                for number in range(ROUNDS):
                    reports.append(reconcile(conn, SHOP, dry_run=number % 2 == 0))
        finally:
            done.set()

    at_once(lambda: produce(1), lambda: produce(2), work, work, audit)
    assert len(reports) == ROUNDS
    assert [report.findings for report in reports if report.drift] == []
    assert [report.skipped for report in reports if report.skipped] == []
    shop.drain()
    assert shop.wrong() == {}
    assert shop.repairs() == []


@pytest.mark.exhaustive
def test_healing_under_load(shop: Shop) -> None:
    """What is healed while new events arrive is right afterwards, and nothing was counted twice."""
    done = threading.Event()

    def produce() -> None:
        number = 0
        with Log(shop.url) as log:
            while not done.is_set():
                number += 1
                log.append(events(9, f"new{number}-", metadata={"amount": number}))

    def work() -> None:
        Worker(shop.url, SHOP, poll=0.01, stopped=done.is_set).run()

    def heal() -> None:
        try:
            for _ in range(4):
                shop.tamper("UPDATE {daily} SET events = events + 1 WHERE day = '2026-03-03'")
                shop.tamper("DELETE FROM {purchases} WHERE event_id < 'e02'")
                shop.tamper("UPDATE {graded} SET grade = 'huge' WHERE event_id < 'e01'")
                shop.tamper("UPDATE {paths} SET path = NULL")
                assert shop.reconcile().drift > 0
        finally:
            done.set()

    at_once(produce, work, heal)
    shop.drain()
    assert shop.wrong() == {}
    assert shop.reconcile().drift == 0


def test_what_is_being_loaded_is_not_audited(shop: Shop) -> None:
    """After a recovery a live metric may be loaded anew. Of the rows of such a step the cursor knows nothing."""
    build = live(shop.worker, "paths")
    assert build is not None
    compiler = Compiler(SHOP)
    compiled = compiler.of(shop.worker, build)
    with connect_as(shop.url, autocommit=True) as owner:
        owner.execute("SET ROLE refold_worker")
        unload(owner, build)
    steps = 0
    while (step := load_step(shop.worker, compiled, bucket=20)) is not None and not step.finished:
        steps += 1
        for depth in DEPTHS:
            assert [name for name, _ in reconcile(shop.worker, SHOP, ["paths"], depth=depth).skipped] == ["paths"]
        with pytest.raises(BuildError, match="is being loaded again"):
            heal(shop.worker, compiler, build, set(range(-128, 128)))
        while (audited := rolling.step(shop.worker, compiler)) is not None:
            assert audited.projection != "paths"
    assert steps > 1
    shop.drain()
    assert shop.wrong() == {}
    assert shop.reconcile().clean
