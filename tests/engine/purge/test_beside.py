"""A purge beside others: readers under a snapshot, pages, producers, another purge, and heals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from refold.engine.purge.conditions import verified
from refold.engine.purge.purge import Purged, let_go, purge
from refold.engine.reconcile.audit import as_kept, audit, snapshot
from refold.errors import BuildError
from refold.postgres.rows import one_row
from refold.store.builds.build import lock
from refold.store.builds.compiled import Compiler
from refold.store.totals import count_events
from tests.engine.purge.conftest import ENDS, PROJECT, Yard
from tests.support.law import worker_connection
from tests.support.waiting import wait_until

pytestmark = pytest.mark.live("archived")

Connect = Callable[..., psycopg.Connection[Any]]


@contextmanager
def purging(yard: Yard) -> Iterator[list[Purged]]:
    """A purge in a thread of its own; what it did is in the list when the block has ended."""
    done: list[Purged] = []
    count_events(yard.worker)
    (now,) = one_row(yard.admin, "SELECT clock_timestamp()")

    def run() -> None:
        with worker_connection(yard.url) as conn:
            done.append(purge(conn, Compiler(PROJECT), limit=now))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield done
    finally:
        thread.join()


def waits(yard: Yard) -> bool:
    """Whether a session waits for the lock that detaches a segment, or has given up waiting once."""
    query = "SELECT count(*) FROM refold.archives WHERE state = 'purged'"
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'refold.events'::regclass"
    return one_row(yard.admin, query) == (0,) and one_row(yard.admin, blocked) != (0,)


def test_an_audit_that_began_before_sees_everything(yard: Yard) -> None:
    """Its snapshot holds the log: the segment goes when it has ended."""
    with worker_connection(yard.url) as reader:
        with purging(yard) as done, snapshot(reader):
            before = one_row(reader, "SELECT count(*), refold.log_floor() FROM refold.events")
            wait_until(lambda: waits(yard), 30)
            assert one_row(reader, "SELECT count(*), refold.log_floor() FROM refold.events") == before
        assert len(done[0].segments) == 3
        # Its SQL of before would take what is gone for lost, and is refused.
        old = Compiler(PROJECT)
        build = yard.build("daily")
        compiled = old.of(reader, build.__class__(**{**_fields(build), "floor": 1}))
        with pytest.raises(BuildError, match="left the log just now"):
            audit(reader, compiled)
        with snapshot(reader), pytest.raises(BuildError, match="left the log just now"):
            as_kept(reader, compiled)
    yard.look()


def _fields(build: Any) -> dict[str, Any]:
    return {name: getattr(build, name) for name in build.__dataclass_fields__}


def test_two_at_once(yard: Yard) -> None:
    with purging(yard) as one, purging(yard) as other:
        pass
    assert sorted([*one[0].segments, *other[0].segments]) == sorted({*one[0].segments, *other[0].segments})
    assert one_row(yard.admin, "SELECT refold.log_floor()") == (ENDS[2],)
    yard.look()
    assert yard.wrong() == {}


def test_beside_a_page(yard: Yard, connect: Connect) -> None:
    """A page holds its build: the purge waits for it, and no producer waits for the purge."""
    page = connect()
    page.execute("SET ROLE refold_worker")
    lock(page, yard.build("daily").build_id, wait=True)
    with purging(yard) as done:
        waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation WHERE NOT l.granted"
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%NO KEY UPDATE'"
        wait_until(lambda: one_row(yard.admin, blocked) != (0,), 60)
        assert one_row(yard.admin, waiting) == (0,)
        yard.append(5)
        page.rollback()
    assert len(done[0].segments) == 3
    yard.drain()
    yard.look()
    assert yard.wrong() == {}


def test_a_segment_goes_once(yard: Yard) -> None:
    first, second, *_ = yard.archive()
    count_events(yard.worker)
    yard.fold(first)
    assert let_go(yard.worker, first) == []
    assert [one.reason for one in let_go(yard.worker, first)] != []
    assert verified(yard.worker, first.lower_position, first.upper_position) is None
    # The function that detaches trusts no caller.
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not recorded as purged"):
        yard.worker.execute("SELECT refold.detach_segment(%s)", (second.lower_position,))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not the lowest"):
        yard.worker.execute("SELECT refold.detach_segment(%s)", (second.upper_position,))
