"""The lane: no event is lost or taken twice, wherever it is killed, and live metrics decide how fast it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from refold import append
from refold.engine.backfill import run as lane
from refold.engine.backfill.run import LATE, Terms, abort, usual_s
from refold.errors import BuildError, InputError
from refold.model.backfill.pace import PATIENCE_S
from refold.postgres.connect import Role
from refold.postgres.connect import connect as connect_as
from refold.store import file_backfills as store
from refold.store.file_backfills import FileBackfill
from refold.store.incidents import open_incidents
from refold.store.series import backfills
from tests.support.backfilling import LANE_POINTS, command, give, stage, staged_tables, write
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events, rejected, stored
from tests.support.scratch import Scratch

Connection = psycopg.Connection[Any]


@pytest.fixture
def staged(database_url: str, tmp_path: Path) -> FileBackfill:
    """Thirty events and a record that is none, checked as far as the lane knows."""
    made = stage(database_url, "history", write(tmp_path / "old.jsonl", [*events(30, "old"), "nothing"]))
    with connect_as(database_url, "refold_backfill", autocommit=True) as conn:
        return store.checked(conn, made, {"answers": {}})


def test_records_reach_the_log_in_the_order_of_their_files(
    database_url: str, admin: Connection, staged: FileBackfill
) -> None:
    steps: list[int] = []
    done = give(database_url, staged, batch=7, progress=lambda now: steps.append(now.mark))
    # Batches grow while nobody waits for anything.
    assert steps == [7, 15, 24, 31]
    assert (done.state, done.mark, done.accepted, done.duplicates, done.conflicts) == ("done", 31, 30, 0, 0)
    order = admin.execute("SELECT event_id FROM refold.events ORDER BY position").fetchall()
    assert [event_id for (event_id,) in order] == [f"old{number}" for number in range(30)]
    assert rejected(admin) == [
        ("history", 31, "invalid", "the line is not valid JSON: Expecting value (column 1) (old.jsonl)")
    ]
    assert staged_tables(admin) == 0


def test_what_another_run_has_ended_meanwhile_is_left_as_it_is(database_url: str, staged: FileBackfill) -> None:
    done = give(database_url, staged)
    assert give(database_url, staged) == done


def test_a_batch_may_end_beyond_what_a_smallint_holds(
    database_url: str, admin: Connection, staged: FileBackfill
) -> None:
    """Both the mark and the number of records fit in one, and their sum does not."""
    admin.execute(f"UPDATE {staged.staging} SET number = number + 32000".encode())
    admin.execute("UPDATE refold.file_backfills SET mark = 32000, total = 32031")
    with connect_as(database_url, "refold_backfill", autocommit=True) as conn:
        given = give(database_url, store.read(conn, staged.backfill_id), batch=5_000)
    assert (given.state, given.accepted) == ("done", 30)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["lane_begun", *(f"{point}:2" for point in LANE_POINTS[1:]), "lane_committed:4"])
def test_killed_at_any_step_the_same_command_goes_on(
    database_url: str, admin: Connection, staged: FileBackfill, at: str
) -> None:
    admin.execute("UPDATE refold.file_backfills SET batch = 7, checked_at = now()")
    answers = {"new": 30, "duplicates": 0, "repeated": 0, "conflicts": 0, "invalid": 1, "refused": []}
    admin.execute("UPDATE refold.file_backfills SET findings = %s", (Jsonb({"answers": answers}),))
    killed = command(database_url, "backfill", "run", "history", env={"REFOLD_CRASH_AT": at})
    assert killed.returncode == -9, killed.stderr
    # With the fourth batch it is done, and nobody has said so.
    ended = at == "lane_committed:4"
    assert store.known(admin, "history", over=True).state == ("done" if ended else "running")
    again = command(database_url, "backfill", "run", "history")
    assert again.returncode == 0, again.stderr
    assert again.stdout == ("history: done: 31 records = 30 accepted + 0 duplicates + 0 conflicts + 1 invalid\n")
    assert len(stored(admin)) == 30
    assert admin.execute("SELECT times FROM refold.rejected").fetchall() == [(1,)]
    assert staged_tables(admin) == 0


def test_what_others_append_meanwhile_is_answered_as_anywhere(
    database_url: str, admin: Connection, staged: FileBackfill
) -> None:
    append(admin, [events(30, "old")[3], {**events(30, "old")[20], "action": "other"}])
    done = give(database_url, staged)
    assert (done.accepted, done.duplicates, done.conflicts) == (28, 1, 1)
    assert ("history", 21, "conflict", "the log holds an event with this id and other content (old.jsonl)") in rejected(
        admin
    )


def test_a_loss_of_what_is_staged_is_told(database_url: str, admin: Connection, staged: FileBackfill) -> None:
    """A crash of the server empties a table that is UNLOGGED."""
    assert admin.execute(
        f"SELECT relpersistence FROM pg_class WHERE oid = '{staged.staging}'::regclass"
    ).fetchone() == ("u",)
    with pytest.raises(InputError, match="what was staged for history"):

        def crash(now: FileBackfill) -> None:
            admin.execute(f"TRUNCATE {staged.staging}".encode())

        give(database_url, staged, batch=7, progress=crash)
    assert len(stored(admin)) == 7
    with pytest.raises(InputError, match="7 of its 31 records were answered before") as told:
        give(database_url, store.known(admin, "history"))
    assert "stage the same files again" in (told.value.remedy or "")
    assert store.known(admin, "history").mark == 7


def test_one_backfill_runs_at_a_time(
    database_url: str, tmp_path: Path, admin: Connection, staged: FileBackfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = stage(database_url, "other", write(tmp_path / "other.jsonl", events(3, "other")))
    with connect_as(database_url, "refold_backfill", autocommit=True) as conn:
        other = store.checked(conn, other, {})

    def begin_another(now: FileBackfill) -> None:
        if now.state == "done":
            return
        with pytest.raises(BuildError, match="run a backfill at a time, and another runs history") as told:
            give(database_url, other)
        assert [one.state for one in store.as_told(admin, store.every(admin))] == ["running", "checked"]
        assert told.value.remedy == "Wait until it ends, or end it: `refold backfill pause history`."

    monkeypatch.setattr(lane, "_LOCK_S", 0.0)
    assert give(database_url, staged, batch=16, progress=begin_another).state == "done"
    # And one that a killed process has left running makes room.
    left = stage(database_url, "left", write(tmp_path / "left.jsonl", events(3, "left")))
    admin.execute("UPDATE refold.file_backfills SET state = 'running' WHERE name = 'left'")
    assert give(database_url, other).state == "done"
    assert store.read(admin, left.backfill_id).state == "paused"


@pytest.mark.parametrize(("act", "state"), [("pause", "paused"), ("abort", "aborted")])
def test_pause_and_abort_end_it_before_its_next_batch(
    database_url: str, admin: Connection, staged: FileBackfill, act: str, state: str
) -> None:
    def order(now: FileBackfill) -> None:
        with connect_as(database_url, "refold_backfill", autocommit=True) as conn:
            if act == "pause":
                assert store.pause(conn, now, "lunch")
            else:
                abort(conn, now)

    done = give(database_url, staged, batch=7, progress=order)
    assert (done.state, done.mark, len(stored(admin))) == (state, 7, 7)
    if state == "paused":
        assert done.because == "lunch"
        assert give(database_url, done).state == "done"
    assert staged_tables(admin) == 0


def test_it_ends_at_its_time(database_url: str, admin: Connection, staged: FileBackfill) -> None:
    over = Terms(3600.0, until=datetime.now(UTC) - timedelta(seconds=1))
    done = give(database_url, staged, over)
    assert (done.state, done.mark) == ("paused", 0)
    assert done.because is not None and done.because.startswith("it runs until ")


def test_it_waits_until_live_metrics_are_fresh(
    database_url: str, admin: Connection, staged: FileBackfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics are late after the second batch, and catch up while the third waits."""
    ages = iter([0.0, 0.1, 0.0, 9.0, 9.0, 1.5, 0.9])
    looks: list[float] = []

    def lag(conn: Connection) -> tuple[float, str]:
        looks.append(next(ages, 0.0))
        return looks[-1], "daily"

    monkeypatch.setattr(lane, "lag", lag)
    told: list[tuple[int, str | None]] = []
    done = give(database_url, staged, Terms(2.0), batch=7, progress=lambda now: told.append((now.mark, now.because)))
    assert done.state == "done"
    late = "daily is 9.0 s behind, and may be 2.0 s"
    # 1.5 s are below the limit, but a batch that waits is given only at half of it.
    assert told[:3] == [(7, None), (15, late), (15, late)]
    assert looks[:7] == [0.0, 0.1, 0.0, 9.0, 9.0, 1.5, 0.9]


def test_it_pauses_itself_when_metrics_stay_late(
    database_url: str, admin: Connection, staged: FileBackfill, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, int(PATIENCE_S) // 4))
    monkeypatch.setattr(lane, "lag", lambda conn: (5.0, "daily"))
    stopped = SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=lambda seconds: None)
    monkeypatch.setattr(lane, "time", stopped)
    done = give(database_url, staged, Terms(2.0))
    assert (done.state, done.because, done.mark) == ("paused", LATE, 0)
    (incident,) = open_incidents(admin, "backfill_paused")
    assert (incident.subject, incident.evidence) == (
        "history",
        {"age": 5.0, "limit": 2.0, "for": PATIENCE_S, "left": 31},
    )
    monkeypatch.undo()
    assert give(database_url, done).state == "done"
    assert open_incidents(admin, "backfill_paused") == []


@pytest.mark.live("shop")
def test_a_live_metric_that_nobody_keeps_holds_it_up(
    database_url: str, admin: Connection, staged: FileBackfill
) -> None:
    make_live(database_url)
    append(admin, events(1))
    seen: list[str | None] = []

    def then_somebody_does(now: FileBackfill) -> None:
        seen.append(now.because)
        drain(database_url, SHOP)

    assert give(database_url, staged, Terms(1e-6), progress=then_somebody_does).state == "done"
    assert seen[0] is not None and "behind, and may be" in seen[0]
    drain(database_url)
    assert wrong(database_url) == {}


def test_batches_are_bounded_by_their_text(
    database_url: str, admin: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "CHARACTERS", 5_000)
    long = [{**one, "metadata": {"text": "x" * 3_000}} for one in events(4, "old")]
    made = stage(database_url, "history", write(tmp_path / "old.jsonl", [*long, *events(3, "short")]))
    with connect_as(database_url, "refold_backfill", autocommit=True) as conn:
        store.checked(conn, made, {})
    steps: list[int] = []
    give(database_url, made, progress=lambda now: steps.append(now.mark))
    assert steps == [1, 2, 3, 7]


def test_the_rate_may_be_bounded(database_url: str, staged: FileBackfill, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(lane, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    give(database_url, staged, Terms(3600.0, rate=10), batch=7)
    assert now == pytest.approx(3.1, abs=0.2)


def test_anomalies_are_not_judged_when_it_ran(database_url: str, admin: Connection, staged: FileBackfill) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert backfills(admin, long_ago) == []
    give(database_url, staged, batch=7)
    ((begin, end),) = backfills(admin, long_ago)
    assert timedelta(0) <= end - begin < timedelta(minutes=5)
    assert backfills(admin, end + timedelta(days=1)) == []
    # Events of the day before it ran change what is yet to be judged.
    admin.execute("UPDATE refold.file_backfills SET first_ts = lower(ran) - interval '2 days', last_ts = lower(ran)")
    ((earlier, _),) = backfills(admin, long_ago)
    assert begin - earlier == timedelta(days=1)


def test_what_is_usual_leaves_out_the_minutes_of_backfills(scratch: Scratch, admin: Connection) -> None:
    scratch.deploy(daily="SELECT action, count(*) AS n FROM events GROUP BY action")
    with connect_as(scratch.url, "refold_worker", autocommit=True) as conn:
        assert usual_s(conn) is None
        scratch.append(5)
        scratch.drain()
        usual = usual_s(conn)
        assert usual is not None and 0 < usual < 60
        admin.execute(
            "INSERT INTO refold.file_backfills (name, files, options, ran) VALUES ('x', '[]', '{}',"
            " tstzmultirange(tstzrange(now() - interval '2 hours', now() + interval '1 hour')))"
        )
        assert usual_s(conn) is None


@pytest.mark.parametrize("role", ["refold_producer", "refold_analyst", "refold_observer", "refold_inspector"])
def test_who_may_not_touch_what_is_staged(database_url: str, staged: FileBackfill, role: Role) -> None:
    reads = f"SELECT count(*) FROM {staged.staging}"
    changes = [
        f"DELETE FROM {staged.staging}",
        f"UPDATE {staged.staging} SET action = 'x'",
        f"DROP TABLE {staged.staging}",
    ]
    with connect_as(database_url, role, autocommit=True) as conn:
        for statement in changes if role == "refold_inspector" else [reads, *changes]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())


def test_an_observer_sees_no_finding(database_url: str, staged: FileBackfill, admin: Connection) -> None:
    with connect_as(database_url, "refold_observer", autocommit=True) as conn:
        (seen,) = store.every(conn)
        assert (seen.name, seen.total, seen.files, seen.findings) == ("history", 31, [], None)
        admin.execute("UPDATE refold.file_backfills SET state = 'running'")
        assert [one.state for one in store.as_told(conn, store.every(conn))] == ["interrupted"]
