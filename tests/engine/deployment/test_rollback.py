"""Going back: the earlier builds go on from where they stopped, and nothing that arrived since is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.deployment.deploy import deploy, rebuild
from refold.engine.deployment.rollback import plan, rollback
from refold.engine.publish.switch import drop_superseded
from refold.engine.reconcile import reconcile
from refold.engine.reconcile.release import release
from refold.errors import BuildError
from refold.model.projection.definition import load_directory
from refold.service.worker.loop import Worker
from refold.store.builds.build import Build, find, live
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import find as letters
from refold.store.incidents import find as incidents
from tests.engine.isolate.prices import LENIENT, STRICT
from tests.support.law import worker_connection

Connection = psycopg.Connection[tuple[Any, ...]]

CLICKS = "SELECT user_id, action, ts FROM events WHERE action <> 'ping'"
CLICKS_ALL = "SELECT user_id, action, ts FROM events"
PER_ACTION = "SELECT action, count(*) AS events FROM clicks GROUP BY action"
PER_ACTION_TWICE = "SELECT action, 2 * count(*) AS events FROM clicks GROUP BY action"
PER_USER = "SELECT user_id, count(*) AS events FROM clicks GROUP BY user_id"
EVENTS = "SELECT version, count(*) AS events FROM events GROUP BY version"
EVENTS_CHANGED = "SELECT version, count(*) AS events, count(user_id) AS known FROM events GROUP BY version"


class Project:
    """A folder of projections and the database they are deployed in."""

    def __init__(self, folder: Path, url: str, worker: Connection) -> None:
        self.folder = folder
        self.url = url
        self.worker = worker
        self._number = 0

    def deploy(self, **files: str | None) -> list[str]:
        """Writes files (None removes one) and deploys; answers what went live."""
        for name, text in files.items():
            path = self.folder / f"{name}.sql"
            path.unlink() if text is None else path.write_text(text)
        built = deploy(self.worker, self.folder, load_directory(self.folder), lambda progress: None)
        return [build.projection for build in built]

    def rebuild(self, *names: str) -> None:
        rebuild(self.worker, self.folder, names, lambda progress: None)

    def rollback(self, name: str) -> list[str]:
        return [b.projection for b in rollback(self.worker, self.folder, name, lambda progress: None)]

    def append(self, *actions: str, conn: Connection | None = None) -> None:
        """Appends an event for each action, by user u."""
        events = []
        for action in actions:
            self._number += 1
            events.append({"id": str(self._number), "user_id": "u", "action": action, "ts": self._number})
        if conn is not None:
            append(conn, events)
            return
        with psycopg.connect(self.url) as own:
            append(own, events)

    def drain(self) -> None:
        """Applies everything."""
        Worker(self.url, self.folder).run(drain=True)

    def rows(self, metric: str) -> list[tuple[Any, ...]]:
        return self.worker.execute(f"SELECT * FROM metrics.{metric} ORDER BY 1".encode()).fetchall()

    def live(self, name: str) -> Build:
        found = live(self.worker, name)
        assert found is not None
        return found


@pytest.fixture
def project(tmp_path: Path, database_url: str) -> Iterator[Project]:
    with worker_connection(database_url) as worker:
        yield Project(tmp_path, database_url, worker)


def test_the_earlier_definition_over_the_whole_log(project: Project) -> None:
    project.append("a", "b")
    project.deploy(total=EVENTS)
    before = project.live("total")
    project.deploy(total=EVENTS_CHANGED)
    project.append("c")
    assert project.rollback("total") == ["total"]
    assert project.live("total").build_id == before.build_id
    assert project.rows("total") == [(1, 3)]


def test_going_back_twice_goes_forward(project: Project) -> None:
    project.deploy(total=EVENTS)
    project.deploy(total=EVENTS_CHANGED)
    later = project.live("total")
    project.rollback("total")
    project.append("a")
    project.rollback("total")
    assert project.live("total").build_id == later.build_id
    assert project.rows("total") == [(1, 1, 1)]


def test_what_went_live_together_goes_back_together(project: Project) -> None:
    project.append("view", "ping")
    project.deploy(clicks=CLICKS, per_action=PER_ACTION)
    project.deploy(clicks=CLICKS_ALL)
    assert project.rows("per_action") == [("ping", 1), ("view", 1)]
    project.append("view")
    assert project.rollback("per_action") == ["clicks", "per_action"]
    assert project.rows("per_action") == [("view", 2)]
    assert project.live("per_action").upstream_id == project.live("clicks").build_id


def test_a_metric_that_is_new_since_goes_and_comes_back(project: Project) -> None:
    project.append("view", "ping")
    project.deploy(clicks=CLICKS)
    project.deploy(clicks=CLICKS_ALL, per_user=PER_USER)
    steps = {step.projection: step for step in plan(project.worker, "clicks")}
    assert steps["clicks"].action == "goes back"
    assert (steps["per_user"].action, steps["per_user"].table) == ("removed", None)
    project.rollback("clicks")
    assert live(project.worker, "per_user") is None
    with pytest.raises(psycopg.errors.UndefinedTable):
        project.rows("per_user")
    assert {step.projection: step.action for step in plan(project.worker, "clicks")} == {
        "clicks": "goes back",
        "per_user": "comes back",
    }
    project.rollback("clicks")
    assert project.rows("per_user") == [("u", 2)]


def test_what_reads_a_removed_metric_goes_too(project: Project) -> None:
    project.append("view", "ping")
    project.deploy(clicks=CLICKS)
    project.deploy(
        clicks=CLICKS_ALL,
        views="SELECT user_id, ts FROM clicks WHERE action = 'view'",
        viewers="SELECT user_id, count(*) AS views FROM views GROUP BY user_id",
    )
    removed = [step.projection for step in plan(project.worker, "clicks") if step.action == "removed"]
    assert sorted(removed) == ["viewers", "views"]
    project.rollback("clicks")
    assert [build.projection for build in find(project.worker, "b.state IN ('live', 'building')")] == ["clicks"]


def test_views_of_analysts_are_not_taken_away_with_a_metric(project: Project) -> None:
    project.deploy(clicks=CLICKS)
    project.deploy(clicks=CLICKS_ALL, per_user=PER_USER)
    project.worker.execute("CREATE VIEW metrics.mine AS SELECT * FROM metrics.per_user")
    now = project.live("clicks")
    with pytest.raises(BuildError, match=r"view metrics\.mine depends on"):
        project.rollback("clicks")
    assert project.live("clicks").build_id == now.build_id
    project.worker.execute("DROP VIEW metrics.mine")
    project.rollback("clicks")
    assert live(project.worker, "per_user") is None


def test_an_interrupted_rollback_is_finished_by_a_worker(project: Project) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(progress: object) -> None:
        raise Interrupted

    project.deploy(total=EVENTS)
    first = project.live("total")
    project.deploy(total=EVENTS_CHANGED)
    project.append("a")
    with pytest.raises(Interrupted):
        rollback(project.worker, project.folder, "total", interrupt)
    with pytest.raises(BuildError, match="already under way"):
        project.rollback("total")
    project.drain()
    assert project.live("total").build_id == first.build_id
    assert project.rows("total") == [(1, 1)]


def test_readers_follow_an_upstream_that_was_only_rebuilt(project: Project) -> None:
    project.append("view")
    project.deploy(clicks=CLICKS, per_action=PER_ACTION)
    first = project.live("clicks")
    project.rebuild("clicks")
    assert [(s.projection, s.action) for s in plan(project.worker, "clicks")] == [
        ("clicks", "goes back"),
        ("per_action", "follows"),
    ]
    project.append("view")
    project.rollback("clicks")
    assert project.live("clicks").build_id == first.build_id
    assert project.live("per_action").upstream_id == first.build_id
    project.append("view")
    project.drain()
    assert project.rows("per_action") == [("view", 3)]


def test_a_revived_build_reads_the_rebuilt_upstream(project: Project) -> None:
    project.append("view")
    project.deploy(clicks=CLICKS, per_action=PER_ACTION)
    project.deploy(per_action=PER_ACTION_TWICE)
    project.append("view")
    project.rebuild("clicks")
    project.append("view")
    project.rollback("per_action")
    assert project.live("per_action").upstream_id == project.live("clicks").build_id
    project.drain()
    assert project.rows("per_action") == [("view", 3)]


def deploy_over_damaged_rows(project: Project) -> None:
    """A metric whose first build has read rows that somebody had changed."""
    project.append("view", "buy")
    project.deploy(clicks=CLICKS)
    clicks = f"refold_builds.{project.live('clicks').table_name}"
    project.worker.execute(f"UPDATE {clicks} SET action = 'buy' WHERE action = 'view'".encode())
    project.deploy(per_action=PER_ACTION)


def test_a_revived_build_gets_what_was_healed_in_its_stream(project: Project) -> None:
    """It had read the damaged rows; when they were healed it was retired, and nobody's reader."""
    deploy_over_damaged_rows(project)
    assert project.rows("per_action") == [("buy", 2)]
    project.deploy(per_action=PER_ACTION_TWICE)
    assert reconcile(project.worker, project.folder).drift > 0
    project.append("view")
    project.rollback("per_action")
    project.drain()
    assert project.rows("per_action") == [("buy", 1), ("view", 2)]
    assert reconcile(project.worker, project.folder).clean


def test_a_revived_build_gets_what_was_released_into_its_stream(project: Project, conn: Connection) -> None:
    conn.autocommit = True
    conn.execute(STRICT)
    worth = "SELECT event_id, user_id, public.price(user_id) AS worth FROM events"
    project.deploy(worth=worth, per_worth="SELECT worth, count(*) AS events FROM worth GROUP BY worth")
    with psycopg.connect(project.url) as own:
        append(own, [{"id": "f", "user_id": "free", "action": "a", "ts": 1}])
    project.drain()
    project.deploy(per_worth="SELECT worth, 2 * count(*) AS events FROM worth GROUP BY worth")
    conn.execute(LENIENT)
    (letter,) = letters(project.worker, "d.state = 'waiting'")
    assert release(project.worker, Compiler(project.folder), letter).answer == "released"
    assert project.rows("per_worth") == [(0, 2)]
    project.rollback("per_worth")
    assert project.rows("per_worth") == [(0, 1)]


def test_a_revived_build_that_goes_on_with_another_stream_is_compared_with_it(project: Project) -> None:
    deploy_over_damaged_rows(project)
    project.deploy(per_action=PER_ACTION_TWICE)
    project.rebuild("clicks")
    project.rollback("per_action")
    assert project.live("per_action").upstream_id == project.live("clicks").build_id
    assert project.rows("per_action") == [("buy", 1), ("view", 1)]


def table(build: Build) -> str:
    return f"refold_builds.{build.table_name}"


def test_what_was_changed_by_hand_in_a_retired_table_is_not_shown(project: Project) -> None:
    """Nobody audits it while it is retired; and the first who looks after the switch must see it right."""
    project.append("a", "b")
    project.deploy(total=EVENTS)
    before = project.live("total")
    project.deploy(total=EVENTS_CHANGED)
    project.worker.execute(f"UPDATE {table(before)} SET events = 99".encode())
    project.rollback("total")
    assert project.rows("total") == [(1, 2)]
    assert [(one.kind, one.detected_by, one.resolved_by) for one in incidents(project.worker)] == [
        ("drift", "refold rollback", "refold rollback")
    ]
    assert reconcile(project.worker, project.folder).clean


def test_a_retired_stream_that_lost_a_row_and_what_reads_it(project: Project) -> None:
    project.append("view", "buy", "ping")
    project.deploy(clicks=CLICKS, per_action=PER_ACTION)
    before = project.live("clicks")
    project.deploy(clicks=CLICKS_ALL)
    project.worker.execute(f"DELETE FROM {table(before)} WHERE action = 'buy'".encode())
    project.append("view")
    project.rollback("clicks")
    assert project.rows("per_action") == [("buy", 1), ("view", 2)]
    assert len(project.rows("clicks")) == 3
    assert reconcile(project.worker, project.folder).clean


def test_a_retired_metric_that_was_emptied(project: Project) -> None:
    project.append("a", "b")
    project.deploy(users="SELECT user_id, count(*) AS events, min(ts) AS first FROM events GROUP BY user_id")
    before = project.live("users")
    project.deploy(users="SELECT user_id, count(*) AS events, max(ts) AS last FROM events GROUP BY user_id")
    project.worker.execute(f"DELETE FROM {table(before)}".encode())
    project.append("c")
    project.rollback("users")
    assert [(user, events) for user, events, _ in project.rows("users")] == [("u", 3)]


def test_an_event_in_flight_is_counted_once(project: Project, connect: Callable[..., Connection]) -> None:
    project.append("a")
    project.deploy(total=EVENTS)
    project.deploy(total=EVENTS_CHANGED)
    slow = connect()
    project.append("late", conn=slow)
    project.append("b")
    project.rollback("total")
    assert project.rows("total") == [(1, 2)]
    slow.commit()
    project.rollback("total")
    assert project.rows("total") == [(1, 3, 3)]


def test_other_metrics_of_the_deployment_that_changed_again_stay(project: Project) -> None:
    project.deploy(total=EVENTS, users="SELECT user_id, count(*) AS events FROM events GROUP BY user_id")
    project.deploy(total=EVENTS_CHANGED, users="SELECT user_id, min(ts) AS first FROM events GROUP BY user_id")
    project.deploy(users="SELECT user_id, max(ts) AS last FROM events GROUP BY user_id")
    later = project.live("users")
    assert {s.projection: s.action for s in plan(project.worker, "total")} == {
        "total": "goes back",
        "users": "stays",
    }
    assert project.rollback("total") == ["total"]
    assert project.live("users").build_id == later.build_id


def test_nothing_to_go_back_to(project: Project) -> None:
    project.deploy(total=EVENTS)
    with pytest.raises(BuildError, match="the live build is its first"):
        project.rollback("total")
    with pytest.raises(BuildError, match="Did you mean total"):
        project.rollback("totall")


def test_a_table_that_was_dropped_does_not_come_back(project: Project) -> None:
    project.deploy(total=EVENTS)
    project.deploy(total=EVENTS_CHANGED)
    drop_superseded(project.worker, keep=0)
    with pytest.raises(BuildError, match="was dropped") as caught:
        project.rollback("total")
    assert caught.value.remedy == "Change its file back and run `refold deploy`."


def test_a_metric_is_not_lost_on_the_way_back(project: Project) -> None:
    """per_action existed before, but its build of that time is gone: going back would take it away."""
    project.append("view")
    project.deploy(clicks=CLICKS, per_action=PER_ACTION)
    project.deploy(clicks=CLICKS_ALL)
    project.deploy(per_action=PER_ACTION_TWICE)
    drop_superseded(project.worker)
    with pytest.raises(BuildError, match="per_action reads a metric that would go back"):
        project.rollback("clicks")
    assert project.rows("per_action") == [("view", 2)]


def test_one_retired_build_is_kept_and_an_abandoned_one_does_not_count(project: Project) -> None:
    project.deploy(total=EVENTS)
    first = project.live("total")
    project.deploy(total=EVENTS_CHANGED)
    (project.folder / "total.sql").write_text("SELECT version, min(ts) AS first FROM events GROUP BY version")
    deploy(project.worker, project.folder, load_directory(project.folder), lambda p: None, promote=False)
    (project.folder / "total.sql").write_text("SELECT version, max(ts) AS last FROM events GROUP BY version")
    deploy(project.worker, project.folder, load_directory(project.folder), lambda p: None, promote=False)
    drop_superseded(project.worker)
    kept = find(project.worker, "b.state = 'retired'")
    assert [build.build_id for build in kept] == [first.build_id]
    assert project.rollback("total") == ["total"]


TRANSFORM = """
from pydantic import BaseModel
from refold import Event, transform

class Loud(BaseModel):
    event_id: str
    action: str

@transform(reads="events")
def loud(event: Event) -> Loud:
    return Loud(event_id=event.event_id, action=event.action.{how}())
"""


def test_a_transform_goes_back_with_its_code(project: Project) -> None:
    file = project.folder / "loud.py"
    file.write_text(TRANSFORM.format(how="upper"))
    project.append("a")
    project.deploy()
    file.write_text(TRANSFORM.format(how="title"))
    project.deploy()
    now = project.live("loud")
    with pytest.raises(BuildError, match="needs the code that it was deployed with"):
        project.rollback("loud")
    assert project.live("loud").build_id == now.build_id
    assert not find(project.worker, "b.state = 'building'")
    file.write_text(TRANSFORM.format(how="upper"))
    project.append("bb")
    project.rollback("loud")
    assert {action for _, action in project.rows("loud")} == {"A", "BB"}
