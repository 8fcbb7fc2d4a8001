"""Faults do what they say: a fault that changes nothing would make every campaign hold."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import psycopg
import pytest

from chaos.faults import inject
from chaos.findings import Findings
from chaos.invariants import check_dead_letters, check_log, check_metrics, live
from chaos.journal import read
from chaos.oracle import left_out
from chaos.schedule import EXPOSED, HOSTILE, UNREADABLE, Parameters, Step
from chaos.stage import HELD_SNAPSHOT_AFTER, OWN, Stage
from tests.support.waiting import wait_until


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage(5)
    try:
        made.install()
        yield made
    finally:
        made.close(keep=False)


def rows(stage: Stage, name: str) -> int:
    with stage.connect() as conn:
        row = conn.execute(f"SELECT count(*) FROM metrics.{name}".encode()).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.exhaustive
def test_tampering_changes_rows_that_reconcile_finds(stage: Stage) -> None:
    stage.work()
    stage.produce()
    wait_until(lambda: all(rows(stage, name) > 50 for name in EXPOSED), deadline_s=60)
    for name in EXPOSED:
        for kind in ("update", "delete", "insert", "truncate"):
            done = inject(stage, Step(0, "tampered", {"projection": name, "kind": kind, "rows": 3}))
            # Fewer than it was told to where a worker has just written the row anew.
            assert done.drift >= 1, done.note
    done = inject(stage, Step(0, "tampered", {"projection": "exposed_visitors", "kind": "forget", "rows": 3}))
    assert done.drift >= 1, done.note
    assert stage.refold("reconcile").status == 1
    assert stage.refold("reconcile").status == 0


@pytest.mark.exhaustive
def test_a_killed_producer_is_replaced(stage: Stage) -> None:
    stage.produce(["single"])
    journal = stage.journals / "single.journal"
    wait_until(lambda: journal.exists() and b"answers" in journal.read_bytes(), deadline_s=30)
    _, killed = stage.producers[0]
    inject(stage, Step(0, "producer killed", {"producer": 0}))
    _, other = stage.producers[0]
    assert killed.poll() is not None and other.pid != killed.pid
    size = journal.stat().st_size
    wait_until(lambda: journal.stat().st_size > size, deadline_s=30)
    assert stage.stop_producing(30) == []


def purchases(stage: Stage, condition: str) -> int:
    with stage.connect() as conn:
        row = conn.execute(f"SELECT count(*) FROM refold.events WHERE {condition}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def grown(stage: Stage, before: int) -> bool:
    return rows(stage, "purchases") > before


POISON: dict[str, Parameters] = {
    "poison": {"events": 2},
    "poison in decoding": {"kind": "exponent"},
    "poison together": {"first": -1, "users": 2},
    "poison in the view": {"users": 2},
}


@pytest.mark.exhaustive
def test_poison_is_quarantined_by_the_metrics_that_it_is_meant_for(stage: Stage) -> None:
    stage.work()
    steps = [Step(0, fault, how) for fault, how in POISON.items()]
    steps += [Step(0, "poison in decoding", {"kind": kind}) for kind in UNREADABLE if kind != "exponent"]
    for step in steps:
        done = inject(stage, step)
        assert done.wrong == [] and done.detected is not None, (step, done)
    found = Findings()
    with stage.connect() as conn:
        events = check_log(conn, read(stage.journals.glob("*.journal")), found)
        check_dead_letters(conn, events, set(), found)
        check_metrics(conn, live(stage), events, set(), found, "now")
        assert found.violations == {}
        assert {name: len(ids) for name, ids in left_out(events).items()} == {
            "poisoned": 2,
            "graded": 3,
            "shares": 4,
            "ratios": 4,
        }
        conn.execute("UPDATE refold.dead_letters SET state = 'released', ended_at = now() WHERE event_id LIKE 'zero-%'")
        check_dead_letters(conn, events, set(), found)
        assert len(found.violations["I7"]) == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["delete", "change"])
def test_a_damaged_log_is_noticed_and_restored(stage: Stage, kind: str) -> None:
    stage.work()
    done = inject(stage, Step(0, "log damaged", {"kind": kind, "found_by": "scrub", "seconds": 1}))
    assert done.wrong == [] and done.detected is not None, done
    with stage.connect() as conn:
        rows = conn.execute("SELECT kind FROM refold.incidents WHERE resolved_at IS NOT NULL").fetchall()
    assert ("log_damage",) in rows


@pytest.mark.exhaustive
def test_a_held_snapshot_is_named(stage: Stage) -> None:
    stage.work()
    done = inject(stage, Step(0, "snapshot held", {"seconds": 1}))
    assert done.wrong == [] and done.detected is not None and done.detected > HELD_SNAPSHOT_AFTER, done


@pytest.mark.exhaustive
def test_hostile_settings_are_set_and_reset_and_everything_is_published(stage: Stage) -> None:
    assert set(OWN) == set(HOSTILE)
    stage.work()
    stage.produce()
    for setting in ("statement_timeout", "default_transaction_read_only", "client_encoding", "search_path"):
        before = rows(stage, "purchases")
        done = inject(stage, Step(0, "settings turned hostile", {"setting": setting, "seconds": 1}))
        assert done.wrong == [] and done.note.startswith(f"{setting} = "), done
        with stage.connect() as conn:
            assert conn.execute("SELECT FROM pg_db_role_setting").rowcount == 0
        wait_until(partial(grown, stage, before), deadline_s=60)
    with stage.connect() as conn:
        conn.execute("CREATE TABLE public.faceless (n integer); INSERT INTO public.faceless VALUES (1)")
        assert inject(stage, Step(0, "published", {})).wrong == []
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            conn.execute("UPDATE public.faceless SET n = 2")
    assert inject(stage, Step(0, "hot key", {"events": 500})).note == "500 events"
    wait_until(lambda: purchases(stage, "user_id = 'hot'") == 500, deadline_s=60)
    assert stage.stop_producing(60) == []
