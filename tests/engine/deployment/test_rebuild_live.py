"""Deploying, rebuilding and switching while producers write and analysts read."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.engine.apply.load import load_step
from refold.engine.apply.page import apply_next_page
from refold.engine.apply.step import StepRunner
from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.deployment.deploy import deploy, rebuild
from refold.engine.publish.switch import promote
from refold.errors import BuildError
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect as connect_as
from refold.service.worker.loop import Worker
from refold.store.builds.build import BY_KEY, find, live
from refold.store.builds.compiled import Compiler
from refold.store.builds.graph import by_depth
from tests.support.law import PROJECT, broken, deploy_project, project, random_events, worker_connection, wrong_metrics
from tests.support.live import SHOP
from tests.support.making import events
from tests.support.processes import worker
from tests.support.producers import Producer
from tests.support.sessions import somebody_waits
from tests.support.waiting import wait_until

Connect = Callable[..., psycopg.Connection[Any]]

WRITERS = 8


def silent(progress: object) -> None:
    """Nobody needs to be told."""


@pytest.fixture
def url(database_url: str) -> str:
    """A database with some events and the law's project live over them."""
    with Log(database_url) as log:
        log.append(random_events(150))
    deploy_project(database_url)
    return database_url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The law's project without what needs an index on the log, which waits for writers."""
    by_key = [f"{name}.sql" for name, one in project().items() if one.upstream is None and one.plan.upkeep in BY_KEY]
    shutil.copytree(PROJECT, tmp_path / "projections", ignore=shutil.ignore_patterns(*by_key))
    return tmp_path / "projections"


def check(url: str, folder: Path = PROJECT) -> None:
    """Everything is applied, and every metric is right."""
    Worker(url, folder).run(drain=True)
    assert wrong_metrics(url, load_directory(folder)) == {}


# ---------------------------------------------------------------- with writers in flight


def writing(url: str) -> list[Producer]:
    """Producers, at work."""
    producers = [Producer(url, number, 15) for number in range(WRITERS)]
    for producer in producers:
        producer.start()
    return producers


def stored(conn: psycopg.Connection[Any]) -> set[str]:
    return {event_id for (event_id,) in conn.execute("SELECT event_id FROM refold.events").fetchall()}


def test_a_first_build_with_writers_in_flight(database_url: str, folder: Path, connect: Connect) -> None:
    """FAULTS 2. One has written and not committed; the build neither waits for it nor forgets it."""
    paused = connect()
    append(paused, random_events(5, prefix="paused-"))
    producers = writing(database_url)
    deploy_project(database_url, folder)
    acknowledged = set().union(*(producer.result() for producer in producers))
    paused.commit()
    check(database_url, folder)
    assert stored(paused) == acknowledged | {f"paused-{number}" for number in range(5)}


@pytest.mark.slow
def test_a_rebuild_of_everything_with_writers_in_flight(url: str, connect: Connect) -> None:
    paused = connect()
    append(paused, random_events(5, prefix="paused-"))
    producers = writing(url)
    with worker_connection(url) as conn, worker(url, PROJECT, drain=False, poll=0.05):
        for _ in range(2):
            rebuild(conn, PROJECT, list(project()), silent)
        acknowledged = set().union(*(producer.result() for producer in producers))
        paused.commit()
    check(url)
    assert stored(paused) >= acknowledged | {f"paused-{number}" for number in range(5)}


# ---------------------------------------------------------------- with analysts who read


class Analyst(threading.Thread):
    """Looks again and again, and notes when a metric is empty, or counts less than before, or cannot be read."""

    QUERIES = {  # noqa: RUF012
        "everything": "SELECT sum(events) FROM metrics.everything",
        "clicks": "SELECT count(*) FROM metrics.clicks",
        "medians": "SELECT sum(events) FROM metrics.medians",
        "items": "SELECT count(*) FROM metrics.items",
        "item_counts": "SELECT sum(times) FROM metrics.item_counts",
        "letter_counts": "SELECT sum(times) FROM metrics.letter_counts",
        "sessions": "SELECT sum(events) FROM metrics.sessions",
    }

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.stop = threading.Event()
        self.looks = 0
        self.complaints: list[str] = []

    def run(self) -> None:
        before = dict.fromkeys(self.QUERIES, 1)
        try:
            with connect_as(self.url, "refold_analyst", autocommit=True, settings={"statement_timeout": "2s"}) as conn:
                while not self.stop.is_set():
                    for name, query in self.QUERIES.items():
                        [(seen,)] = conn.execute(query.encode()).fetchall()
                        if (seen or 0) < before[name]:
                            self.complaints.append(f"{name}: {seen} after {before[name]}")
                        before[name] = seen or 0
                    self.looks += 1
        except psycopg.Error as error:
            self.complaints.append(repr(error))


@contextmanager
def analysing(url: str) -> Iterator[Analyst]:
    """An analyst at work, who must have nothing to complain of."""
    analyst = Analyst(url)
    analyst.start()
    wait_until(lambda: analyst.looks > 0 or analyst.complaints)
    yield analyst
    looks = analyst.looks
    wait_until(lambda: analyst.looks > looks + 1 or analyst.complaints)
    analyst.stop.set()
    analyst.join(10)
    assert analyst.complaints == []


@pytest.mark.slow
def test_readers_never_see_an_empty_or_half_built_metric(url: str) -> None:
    producers = writing(url)
    with analysing(url), worker_connection(url) as conn, worker(url, PROJECT, drain=False, poll=0.05):
        for names in (list(project()), ["clicks"], ["items", "everything"], ["medians"]):
            rebuild(conn, PROJECT, names, silent)
        for producer in producers:
            producer.result()
    check(url)


def test_an_idle_analyst_delays_a_switch_and_no_other_analyst(url: str, connect: Connect) -> None:
    """TRAPS 16. The switch must not wait in the queue: every reader behind it would wait too."""
    idle = connect()
    idle.execute("SELECT * FROM metrics.everything")
    with analysing(url) as analyst, worker_connection(url) as conn:
        rebuilding = threading.Thread(target=rebuild, args=(conn, PROJECT, ["everything"], silent), daemon=True)
        rebuilding.start()
        asks = "SELECT FROM pg_locks WHERE relation = 'metrics.everything'::regclass AND NOT granted"
        with connect(autocommit=True) as watch:
            wait_until(lambda: watch.execute(asks).rowcount > 0)
        looks = analyst.looks
        wait_until(lambda: analyst.looks > looks + 20 or analyst.complaints)
        assert rebuilding.is_alive()
        idle.rollback()
        rebuilding.join(30)
        assert not rebuilding.is_alive()
        everything = live(conn, "everything")
        assert everything is not None and everything.number == 2
    check(url)


def test_a_switch_gives_up_on_an_analyst_who_stays_and_says_why(url: str, connect: Connect) -> None:
    idle = connect()
    with worker_connection(url) as conn:
        [build] = rebuild(conn, PROJECT, ["everything"], silent, promote=False)
        idle.execute("SELECT * FROM metrics.everything")
        compiled = StepRunner(conn, Compiler(PROJECT))
        with pytest.raises(BuildError, match="a session has held") as refused:
            promote(conn, build.deployment, compiled.compiler, compiled.catch_up, seconds=0.3)
        assert refused.value.remedy is not None and "idle in transaction" in refused.value.remedy
        assert {build.state for build in find(conn, "b.projection = 'everything'")} == {"live", "building"}
        idle.rollback()
        promote(conn, build.deployment, compiled.compiler, compiled.catch_up)
        everything = live(conn, "everything")
        assert everything is not None and everything.build_id == build.build_id
    check(url)


def test_a_switch_brings_the_new_build_to_where_the_old_one_is(url: str, connect: Connect) -> None:
    """Else a metric would count less after the switch than before."""
    paused = connect()
    append(paused, random_events(3, prefix="paused-"))
    with worker_connection(url) as conn:
        compiler = Compiler(PROJECT)
        builds = rebuild(conn, PROJECT, list(project()), silent, promote=False)
        with Log(url) as log:
            log.append(random_events(30, prefix="later-"))
        paused.commit()
        old = by_depth(conn, find(conn, "b.state = 'live'"))
        for build in old:
            apply_next_page(conn, compiler.of(conn, build), 100)
        promote(conn, builds[0].deployment, compiler, StepRunner(conn, compiler).catch_up)
        assert {build.number for build in find(conn, "b.state = 'live'")} == {2}
    # Nobody has applied a page since.
    assert wrong_metrics(url) == {}


# ---------------------------------------------------------------- a switch under a worker's hands


def test_a_worker_that_saw_the_old_upstream_leaves_the_reader_alone(url: str, connect: Connect) -> None:
    """It has the reader's SQL over the old table; with the new upstream's cursor, events would be skipped."""
    compiler = Compiler(PROJECT)
    with worker_connection(url) as conn:
        reader = live(conn, "numbers")
        assert reader is not None
        before = compiler.of(conn, reader)
        rebuild(conn, PROJECT, ["clicks"], silent)
        with Log(url) as log:
            log.append(random_events(20, prefix="later-"))
        clicks = live(conn, "clicks")
        assert clicks is not None
        apply_next_page(conn, compiler.of(conn, clicks), 100)
        assert apply_next_page(conn, before, 100) is None
        assert broken(conn, compiler, reader.build_id) == []
    check(url)


def test_a_load_that_saw_the_old_upstream_leaves_the_build_alone(url: str) -> None:
    compiler = Compiler(PROJECT)
    with worker_connection(url) as conn:
        with conn.transaction():
            deployment = new_deployment(conn, "rebuild", promote=False)
            [build] = make_builds(conn, [project()["numbers"]], deployment, resumed={})
        before = compiler.of(conn, build)
        assert load_step(conn, before, step=10) is not None
        rebuild(conn, PROJECT, ["clicks"], silent)
        assert load_step(conn, before, step=10) is None
        [build] = find(conn, "b.build_id = %s", build.build_id)
        while load_step(conn, compiler.of(conn, build), step=10):
            pass
        assert broken(conn, compiler, build.build_id) == []


def test_a_deploy_that_gets_into_a_deadlock_begins_again(url: str, folder: Path, connect: Connect) -> None:
    """Healing has the stream locked and wants its readers; the deploy has given up a reader, and wants the stream."""
    changed = folder / "item_counts.sql"
    text = changed.read_text()

    def deploy_with(column: str, *, promote: bool) -> None:
        changed.write_text(text.replace("AS furthest", f"AS {column}"))
        with worker_connection(url) as conn:
            deploy(conn, folder, load_directory(folder), silent, promote=promote)

    deploy_with("farthest", promote=False)
    looker, healer = connect(autocommit=True), connect()
    [unfinished] = find(looker, "b.projection = 'item_counts' AND b.state = 'building'")
    with ThreadPoolExecutor() as pool:
        # So that it is the deploy whose wait is cut off.
        healer.execute("SET LOCAL deadlock_timeout = '1h'")
        healer.execute("SELECT FROM refold.builds WHERE build_id = %s FOR UPDATE", (unfinished.upstream_id,))
        deploying = pool.submit(deploy_with, "last_place", promote=True)
        wait_until(lambda: somebody_waits(looker))
        healer.execute("SELECT FROM refold.builds WHERE build_id = %s FOR UPDATE", (unfinished.build_id,))
        healer.commit()
        deploying.result(60)
    assert looker.execute("SELECT count(last_place) FROM metrics.item_counts").fetchone() != (0,)
    check(url, folder)


def test_progress_counts_no_rows_of_segments_that_are_still_empty(
    database_url: str, conn: psycopg.Connection[Any]
) -> None:
    """Of a table that was never vacuumed the planner assumes ten pages at least."""
    append(conn, events(3))
    conn.commit()
    totals: set[int] = set()
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        deploy(worker, SHOP, load_directory(SHOP), lambda progress: totals.add(progress.total))
    assert max(totals) == 3
