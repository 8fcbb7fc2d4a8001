"""The duty that purges: what `keep_log` says, and an incident for what has been in the way for a day."""

from __future__ import annotations

import pytest

from refold.postgres.rows import one_row
from refold.service.duties import purge
from tests.engine.purge.conftest import ENDS, Yard, yard  # noqa: F401

pytestmark = pytest.mark.live("archived")


def floor(yard: Yard) -> int:  # noqa: F811
    return int(one_row(yard.admin, "SELECT refold.log_floor()")[0])


def test_it_purges_what_is_due(yard: Yard) -> None:  # noqa: F811
    yard.count()
    purge.run(yard.worker, yard.compiler)
    assert floor(yard) == 1
    yard.admin.execute("UPDATE refold.settings SET keep_log = '1 hour'")
    purge.run(yard.worker, yard.compiler)
    assert floor(yard) == 1
    yard.admin.execute("UPDATE refold.sealed_slices SET sealed_at = now() - interval '2 hours' WHERE slice < 2")
    purge.run(yard.worker, yard.compiler)
    assert floor(yard) == ENDS[1]
    yard.look()
    assert yard.wrong() == {}


def test_what_is_in_the_way_for_a_day_is_an_incident(yard: Yard) -> None:  # noqa: F811
    yard.count()
    yard.admin.execute("UPDATE refold.settings SET keep_log = '1 hour'")
    yard.admin.execute("UPDATE refold.builds SET loaded = false WHERE projection = 'seen'")
    yard.admin.execute("UPDATE refold.sealed_slices SET sealed_at = now() - interval '2 hours'")
    purge.run(yard.worker, yard.compiler)
    assert yard.incidents() == []
    yard.admin.execute("UPDATE refold.sealed_slices SET sealed_at = now() - interval '2 days'")
    purge.run(yard.worker, yard.compiler)
    assert yard.incidents() == [("purge", "refold.events_000000000000001")]
    (evidence,) = one_row(yard.admin, "SELECT evidence FROM refold.incidents WHERE kind = 'purge'")
    assert "is being loaded" in evidence["because"][0]
    yard.admin.execute("UPDATE refold.builds SET loaded = true WHERE projection = 'seen'")
    purge.run(yard.worker, yard.compiler)
    assert yard.incidents() == []
    assert floor(yard) == ENDS[2]


def test_a_table_that_a_kill_has_left_goes_without_a_setting(yard: Yard) -> None:  # noqa: F811
    (first, *_) = yard.archive()
    yard.count()
    yard.fold(first)
    yard.let_go(first)
    left = "SELECT to_regclass('refold.events_000000000000001') IS NOT NULL"
    assert one_row(yard.admin, left) == (True,)
    purge.run(yard.worker, yard.compiler)
    assert one_row(yard.admin, left) == (False,)
