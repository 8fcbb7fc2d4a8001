"""Who reads the log in one snapshot keeps its segments: else one that is detached in between is missed silently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import refold
from refold import append
from refold.engine.reconcile.audit import snapshot as audit_snapshot
from refold.inspect.lineage.snapshot import reading
from refold.postgres.connect import connect as connect_as
from refold.postgres.snapshot import snapshot
from refold.store.log.log_snapshot import log_snapshot
from tests.support.making import events, small_segments

Connection = psycopg.Connection[Any]
COUNT = "SELECT count(*) FROM refold.events"
WITHOUT_THE_LOG = {
    "engine/lineage/graph.py", "engine/lineage/openlineage.py", "exporter/readings.py", "inspect/health.py",
    "inspect/report.py", "inspect/status.py", "service/duties/capture_gaps.py", "service/duties/sinks.py",
    "sinks/deliver.py", "sinks/skip.py", "store/log/log_snapshot.py",
}  # fmt: skip
"""Who uses the snapshot that holds no table: they read the log through functions at most, for numbers."""


@pytest.fixture
def detach(admin: Connection, connect: Callable[..., Connection]) -> Callable[[], object]:
    """Detaches the first of three segments, and records it in the same transaction."""
    small_segments(admin, 10)
    append(admin, events(25))
    admin.execute("CREATE TABLE public.detached (segment text)")
    admin.execute("GRANT SELECT ON public.detached TO refold_worker, refold_inspector")
    other = connect(autocommit=True)

    def now() -> object:
        with other.transaction():
            other.execute("SET LOCAL lock_timeout = '100ms'")
            other.execute("ALTER TABLE refold.events DETACH PARTITION refold.events_000000000000001")
            other.execute("INSERT INTO public.detached VALUES ('first')")
        return None

    return now


@pytest.mark.parametrize(
    "reader",
    [log_snapshot, audit_snapshot, lambda conn: reading(conn, 10)],
    ids=["log", "audit", "question"],
)
@pytest.mark.parametrize("role", ["refold_worker", "refold_inspector"])
def test_no_segment_goes_while_it_is_read(
    database_url: str, detach: Callable[[], object], reader: Callable[[Connection], Any], role: Any
) -> None:
    with connect_as(database_url, role, autocommit=True) as conn:
        with reader(conn):
            # Before its first look, and so before its snapshot.
            with pytest.raises(psycopg.errors.LockNotAvailable):
                detach()
            assert conn.execute(COUNT).fetchone() == (25,)
        detach()
        with reader(conn):
            seen = conn.execute("SELECT (SELECT count(*) FROM public.detached), (SELECT count(*) FROM refold.events)")
            assert seen.fetchone() == (1, 15)


def test_an_ordinary_snapshot_would_miss_it(database_url: str, detach: Callable[[], object]) -> None:
    """What the lock is for: the events are gone, and the record of it is not there yet."""
    with connect_as(database_url, "refold_worker", autocommit=True) as conn, snapshot(conn):
        assert conn.execute("SELECT count(*) FROM public.detached").fetchone() == (0,)
        detach()
        assert conn.execute("SELECT count(*) FROM public.detached").fetchone() == (0,)
        assert conn.execute(COUNT).fetchone() == (15,)


def test_all_that_read_the_log_hold_it() -> None:
    """A new reader says on which side it is."""
    core = Path(refold.__file__).parent
    raw, plain = set(), set()
    for path in core.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(core).as_posix()
        if "ISOLATION LEVEL" in text:
            raw.add(name)
        if "from refold.postgres.snapshot import" in text:
            plain.add(name)
    assert raw == {"postgres/snapshot.py"}
    assert plain == WITHOUT_THE_LOG
