"""Hash functions may change with a major version: no repeated event becomes a conflict, and no slice drifts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.recovery import recover
from refold.engine.scrub.scrub import scrub
from refold.errors import ForeignCluster
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.connect import connect as connect_as
from refold.store.incidents import find
from refold.store.log.seal import seal
from refold.store.schema.installed import check
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.reconcile_shop import shopping
from tests.support.tampering import tamper
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]


@pytest.fixture
def upgraded(database_url: str, connect: Callable[..., Connection]) -> Connection:
    """A live shop, partly sealed, whose kept hashes are all those of other hash functions."""
    owner = connect(autocommit=True)
    make_live(database_url)
    append(owner, shopping())
    owner.execute("SELECT setval('refold.events_position', %s)", (1 << POSITION_BITS,))
    append(owner, shopping(2, "later"))
    drain(database_url)
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        wait_until(lambda: seal(worker) or None, 60)
    owner.execute("UPDATE refold.settings SET hash_probe[1] = hash_probe[1] + 1")
    tamper(owner, "UPDATE refold.event_ids SET digest = digest # 4711")
    owner.execute("UPDATE refold.sealed_slices SET hash = hash + 4711, ids = ids + 4711 WHERE sealed_at IS NOT NULL")
    owner.execute("UPDATE refold.checksums SET hash = hash + 4711")
    return owner


def test_meanwhile_a_repeated_event_is_no_conflict(upgraded: Connection) -> None:
    again = [*shopping(), *shopping(2, "later")]
    assert {receipt.answer for receipt in append(upgraded, again)} == {"duplicate"}
    (one,) = append(upgraded, [{**again[0], "action": "other"}])
    assert one.answer == "conflict"


def test_workers_wait_until_everything_is_taken_anew(upgraded: Connection, database_url: str) -> None:
    append(upgraded, shopping(1, "new"))
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        with pytest.raises(ForeignCluster, match="hash functions"):
            check(worker)
        report = recover(worker, SHOP)
        assert (report.survey.decision.strategy, report.drift.drift, report.unloaded) == ("prove", 0, [])
        check(worker)
        assert find(worker, "i.kind IN ('drift', 'log_damage')") == []
        assert scrub(worker).damage == []
        drain(database_url)
        assert reconcile(worker, SHOP, depth="quick").clean
        assert reconcile(worker, SHOP).clean
    assert wrong(database_url) == {}
    assert {receipt.answer for receipt in append(upgraded, shopping())} == {"duplicate"}
    assert upgraded.execute("SELECT count(*) FROM refold.acceptances").fetchone() == (0,)


def test_a_server_knows_its_own_hashes(upgraded: Connection) -> None:
    (kept,) = upgraded.execute("SELECT refold.hash_probe() = refold.hash_probe()").fetchall()
    assert kept == (True,)
