"""Expensive builds are taken less often, and hold up no other."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.service.worker import loop
from refold.service.worker.loop import Worker
from refold.service.worker.page_rest import Pacing
from refold.store.builds.build import Build
from tests.support.live import drain, make_live
from tests.support.making import events
from tests.support.waiting import wait_until


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def build(number: int) -> Build:
    """A build; nothing but its number matters."""
    fields: dict[str, Any] = dict.fromkeys(Build.__dataclass_fields__)
    return Build(**fields | {"build_id": number})


def paced() -> tuple[Pacing, Clock]:
    clock = Clock()
    return Pacing(clock, free=1.0, share=3.0, longest=10.0), clock


def test_a_cheap_page_costs_no_rest() -> None:
    pacing, _ = paced()
    pacing.took(1, 1.0, full=False)
    assert pacing.due([build(1)]) == [build(1)]
    assert pacing.wait() == math.inf


def test_an_expensive_page_costs_its_build_a_rest_in_proportion() -> None:
    pacing, clock = paced()
    pacing.took(1, 3.0, full=False)
    assert pacing.due([build(1), build(2)]) == [build(2)]
    assert pacing.wait() == 6.0
    clock.now += 5.9
    assert pacing.due([build(1)]) == []
    clock.now += 0.1
    assert pacing.due([build(1)]) == [build(1)]
    assert pacing.wait() == math.inf, "it has rested: there is nothing to wake up for"


def test_a_rest_has_an_end_whatever_the_page_took() -> None:
    pacing, _ = paced()
    pacing.took(1, 1000.0, full=False)
    assert pacing.wait() == 10.0


def test_a_backlog_goes_on() -> None:
    pacing, _ = paced()
    pacing.took(1, 3.0, full=False)
    pacing.took(1, 3.0, full=True)
    assert pacing.due([build(1)]) == [build(1)]


def test_the_next_to_have_rested_is_the_one_to_wake_up_for() -> None:
    pacing, _ = paced()
    pacing.took(1, 4.0, full=False)
    pacing.took(2, 2.0, full=False)
    assert pacing.wait() == 3.0


@pytest.mark.slow
def test_an_expensive_build_holds_up_no_other(
    database_url: str, admin: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rests; and whoever waits for everything, as a drain does, does not wait for that."""
    admin.execute("""
        CREATE FUNCTION public.slow(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM pg_sleep(1.2); RETURN $1; END $$
    """)
    (tmp_path / "quick.sql").write_text("SELECT action, count(*) AS n FROM events GROUP BY action")
    (tmp_path / "slow.sql").write_text("SELECT event_id, public.slow(action) AS action FROM events")
    tables = make_live(database_url, tmp_path)
    monkeypatch.setattr(loop, "Pacing", lambda: Pacing(free=1.0, share=1e6, longest=1e6))
    stop = threading.Event()
    worker = threading.Thread(target=Worker(database_url, tmp_path, poll=0.05, stopped=stop.is_set).run)

    def rows(projection: str) -> int:
        of = "sum(n)" if projection == "quick" else "count(*)"
        row = admin.execute(f"SELECT coalesce({of}, 0) FROM {tables[projection]}".encode()).fetchone()
        return 0 if row is None else int(row[0])

    worker.start()
    try:
        append(admin, events(1, "a"))
        wait_until(lambda: rows("slow") == 1 and rows("quick") == 1)
        append(admin, events(1, "b"))
        wait_until(lambda: rows("quick") == 2)
        append(admin, events(1, "c"))
        wait_until(lambda: rows("quick") == 3)
        assert rows("slow") == 1
    finally:
        stop.set()
        worker.join(30)
    drain(database_url, tmp_path)
    assert rows("slow") == 3
