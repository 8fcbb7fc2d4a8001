"""The purge: what is purged is counted for ever, and nothing is purged that something still needs."""

from __future__ import annotations

import pytest

from refold.engine.purge.purge import plan, purge
from refold.engine.scrub.scrub import scrub
from refold.postgres.rows import one_row
from tests.engine.purge.conftest import ENDS, Yard

pytestmark = pytest.mark.live("archived")


def test_metrics_count_all_events_that_ever_were(yard: Yard) -> None:
    found = yard.purge()
    assert len(found.segments) == len(found.dropped) == 3
    assert found.stopped_at is None
    floors = {(one.projection, one.floor) for one in yard.builds()}
    below = {("paths", 1), ("tag_weights", 1)}
    assert floors == {(one.projection, ENDS[2]) for one in yard.of_log()} | below
    yard.look()
    yard.append(50)
    yard.drain()
    yard.look()
    assert yard.wrong() == {}
    assert yard.reconcile().clean
    assert scrub(yard.worker).damage == []
    assert one_row(yard.admin, "SELECT min(position) >= %s FROM refold.events", (ENDS[2],)) == (True,)
    assert yard.incidents() == []


def test_without_a_limit_nothing_goes(yard: Yard) -> None:
    assert plan(yard.worker) == []
    assert purge(yard.worker, yard.compiler).segments == []
