"""Workers and deploys that are killed or frozen, at every step: another takes over, nothing is lost or doubled."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import psutil
import psycopg
import pytest

from refold import Log
from refold.engine.reconcile.heal import heal
from refold.postgres.connect import connect
from refold.postgres.failpoints import PAGE_POINTS
from refold.service.worker.loop import Worker
from refold.store.builds.build import find, kept, lock
from refold.store.builds.compiled import Compiler
from tests.support.law import PROJECT, broken, deploy_project, project, random_events, worker_connection, wrong_metrics
from tests.support.processes import deploying, rebuilding, worker
from tests.support.sessions import advisory_locks, pids
from tests.support.waiting import wait_until

KILLED = -signal.SIGKILL


@pytest.fixture
def live_url(database_url: str) -> str:
    """A database in which the law's project is live, with events that no worker has seen."""
    deploy_project(database_url)
    append(database_url, 150)
    return database_url


def append(url: str, number: int, *, prefix: str = "e") -> None:
    with Log(url) as log:
        log.append(random_events(number, prefix=prefix))


def drain(url: str, folder: Path = PROJECT) -> None:
    Worker(url, folder).run(drain=True)


def check(url: str) -> None:
    """The law holds, seen from within and from without, and nobody left a lock."""
    with worker_connection(url) as conn:
        compiler = Compiler(PROJECT)
        for build in kept(conn):
            assert broken(conn, compiler, build.build_id) == []
        # The session of a process that was killed may need a moment to notice.
        wait_until(lambda: advisory_locks(conn) == 0)
    assert wrong_metrics(url) == {}


def run_until_killed(url: str, at: str) -> None:
    with worker(url, PROJECT, env={"REFOLD_CRASH_AT": at}) as process:
        assert process.wait(60) == KILLED, process.communicate()[1]


@pytest.mark.slow
@pytest.mark.live("law")
@pytest.mark.parametrize("point", PAGE_POINTS)
def test_a_worker_killed_at_any_step_of_a_page(live_url: str, point: str) -> None:
    run_until_killed(live_url, at=point)
    drain(live_url)
    check(live_url)


@pytest.mark.live("law")
@pytest.mark.exhaustive
def test_workers_killed_again_and_again(live_url: str) -> None:
    """Each lives for two pages, and dies in the third, until there are not three left."""
    lives = 0
    code = KILLED
    while code == KILLED:
        lives += 1
        with worker(live_url, PROJECT, env={"REFOLD_CRASH_AT": "rows:3"}) as process:
            code = process.wait(60)
    assert code == 0
    assert lives > 5
    check(live_url)


@pytest.mark.slow
@pytest.mark.live("law")
@pytest.mark.parametrize("points", [["rows", "cursor"], ["committed:2", "looked:2"]])
def test_killed_again_while_recovering(live_url: str, points: list[str]) -> None:
    for point in points:
        run_until_killed(live_url, at=point)
    drain(live_url)
    check(live_url)


@pytest.mark.slow
@pytest.mark.parametrize(
    "points", [["load_rows"], ["load_indexes:4"], ["views"], ["load_indexes", "views"], ["views", "views"]]
)
def test_a_first_deploy_that_is_killed_is_resumed_by_the_next(database_url: str, points: list[str]) -> None:
    append(database_url, 150)
    for point in points:
        with deploying(database_url, PROJECT, env={"REFOLD_CRASH_AT": point}) as process:
            assert process.wait(60) == KILLED, process.communicate()[1]
        with worker_connection(database_url) as conn:
            assert find(conn, "b.state = 'live'") == []
            assert conn.execute("SELECT viewname FROM pg_views WHERE schemaname = 'metrics'").fetchall() == [
                ("freshness",)
            ]
    deploy_project(database_url)
    with worker_connection(database_url) as conn:
        assert [build.number for build in kept(conn)] == [1] * len(project())
    check(database_url)


@pytest.mark.slow
def test_a_worker_completes_a_deploy_that_was_killed(database_url: str) -> None:
    append(database_url, 150)
    with deploying(database_url, PROJECT, env={"REFOLD_CRASH_AT": "load_rows:5"}) as process:
        assert process.wait(60) == KILLED, process.communicate()[1]
    drain(database_url)
    with worker_connection(database_url) as conn:
        assert {build.state for build in kept(conn)} == {"live"}
    check(database_url)


@pytest.mark.live("law")
@pytest.mark.slow
@pytest.mark.parametrize("point", ["load_rows:2", "load_indexes:3", "views"])
def test_a_rebuild_that_is_killed_leaves_the_old_builds_live(live_url: str, point: str) -> None:
    drain(live_url)
    append(live_url, 100, prefix="later")
    with worker_connection(live_url) as conn:
        before = find(conn, "b.state = 'live'")
        with rebuilding(live_url, PROJECT, ["clicks", "items"], env={"REFOLD_CRASH_AT": point}) as process:
            assert process.wait(60) == KILLED, process.communicate()[1]
        assert find(conn, "b.state = 'live'") == before
        # Any worker goes on with it.
        drain(live_url)
        numbers = {build.projection: build.number for build in find(conn, "b.state = 'live'")}
        assert numbers["clicks"] == numbers["items"] == numbers["medians"] == numbers["letter_counts"] == 2
        assert numbers["totals"] == 1
    check(live_url)


@pytest.mark.live("law")
@pytest.mark.slow
@pytest.mark.parametrize("point", ["locked", "rows", "cursor"])
def test_a_frozen_worker_that_wakes_up_late_is_refused(live_url: str, point: str) -> None:
    with worker(live_url, PROJECT, frozen_after=0.3, env={"REFOLD_FREEZE_AT": point}) as frozen:
        wait_until(lambda: psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED, deadline_s=30)
        drain(live_url)
        check(live_url)
        append(live_url, 20, prefix="later")
        frozen.send_signal(signal.SIGCONT)
        _, said = frozen.communicate(timeout=60)
    assert frozen.returncode == 0
    assert "retrying after 25P03" in said
    check(live_url)


FROZEN_TRANSFORM = """
import os, signal
from pydantic import BaseModel
from refold import Event, transform

class Slow(BaseModel):
    event_id: str
    action: str

frozen = False

@transform()
def slow(event: Event) -> Slow:
    global frozen
    if os.environ.get("FREEZE_IN_TRANSFORM") and not frozen:
        frozen = True
        os.kill(os.getpid(), signal.SIGSTOP)
    return Slow(event_id=event.event_id, action=event.action)
"""


def test_a_worker_frozen_inside_a_transform_does_not_keep_its_build(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(FROZEN_TRANSFORM)
    deploy_project(database_url, tmp_path)
    append(database_url, 20)
    with worker(database_url, tmp_path, frozen_after=0.3, env={"FREEZE_IN_TRANSFORM": "1"}) as frozen:
        wait_until(lambda: psutil.Process(frozen.pid).status() == psutil.STATUS_STOPPED, deadline_s=30)
        drain(database_url, tmp_path)
        frozen.send_signal(signal.SIGCONT)
        _, said = frozen.communicate(timeout=60)
    assert frozen.returncode == 0
    assert "retrying after 25P03" in said
    with psycopg.connect(database_url) as conn:
        assert conn.execute("SELECT count(*), count(DISTINCT event_id) FROM metrics.slow").fetchone() == (20, 20)


HELD_TRANSFORM = (
    FROZEN_TRANSFORM.partition("frozen = False")[0]
    + """
import time

@transform()
def slow(event: Event) -> Slow:
    while "HOLD" in os.environ and os.path.exists(os.environ["HOLD"]):
        time.sleep(0.01)
    return Slow(event_id=event.event_id, action=event.action)
"""
)


def test_a_heal_that_stands_still_inside_a_transform_does_not_keep_its_build(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, hold = tmp_path / "project", tmp_path / "hold"
    project.mkdir()
    (project / "slow.py").write_text(HELD_TRANSFORM)
    (build,) = deploy_project(database_url, project)
    append(database_url, 20)
    drain(database_url, project)
    hold.touch()
    monkeypatch.setenv("HOLD", str(hold))
    ended: list[str | None] = []

    def healing() -> None:
        settings = {"idle_in_transaction_session_timeout": "300ms"}
        with (
            pytest.raises(psycopg.Error) as error,
            connect(
                database_url, "refold_worker", autocommit=True, application_name="healer", settings=settings
            ) as conn,
        ):
            heal(conn, Compiler(project), build, {0})
        ended.append(error.value.sqlstate)

    thread = threading.Thread(target=healing)
    thread.start()
    with psycopg.connect(database_url, autocommit=True) as conn:
        wait_until(lambda: pids(conn, "healer"), deadline_s=30)
        wait_until(lambda: not pids(conn, "healer"))
        assert hold.exists() and thread.is_alive()
        assert lock(conn, build.build_id) is not None
    hold.unlink()
    thread.join(30)
    assert ended == ["25P03"]
