"""Interleavings, inputs and crashes that once lost an event, counted one twice, or stopped a worker for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply.load import load_step
from refold.engine.apply.step import StepRunner
from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.deployment.deploy import deploy, rebuild
from refold.engine.deployment.promote import go_live
from refold.engine.publish import switch as promotion
from refold.engine.publish.switch import promote
from refold.engine.reconcile.reconcile import reconcile
from refold.errors import DefinitionError
from refold.model.projection.definition import load_directory
from refold.model.stream.cursor import Snapshot
from refold.service.worker.loop import Worker
from refold.store.builds.build import Build, find
from refold.store.builds.build import lock as build_lock
from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection

Connection = psycopg.Connection[tuple[Any, ...]]

PAIRS = """
from pydantic import BaseModel
from refold import Event, transform

class Row(BaseModel):
    a: str

@transform()
def pairs(event: Event) -> list[Row]:
    return [Row(a=event.action), Row(a="x")]
"""
COPIES = """
from pydantic import BaseModel
from refold import transform

class Pair(BaseModel):
    a: str

class Row(BaseModel):
    b: str

@transform(reads="pairs")
def copies(row: Pair) -> Row:
    return Row(b=row.a)
"""
SLOW = """
import threading
from pydantic import BaseModel
from refold import Event, transform

class Row(BaseModel):
    a: str

@transform()
def slow(event: Event) -> Row:
    threading.Event().wait(0.02)
    return Row(a=event.action)
"""


class Project:
    """A folder of projections and its database."""

    def __init__(self, folder: Path, url: str, worker: Connection) -> None:
        self.folder = folder
        self.url = url
        self.worker = worker
        self._number = 0

    def write(self, **files: str | None) -> None:
        for name, text in files.items():
            is_sql = text is None or "import" not in text
            path = self.folder / f"{name}.{'sql' if is_sql else 'py'}"
            path.unlink() if text is None else path.write_text(text)

    def deploy(self, *, live: bool = True, **files: str | None) -> None:
        self.write(**files)
        deploy(self.worker, self.folder, load_directory(self.folder), lambda progress: None, promote=live)

    def append(self, number: int = 1, **fields: Any) -> None:
        events = [{"id": f"e{self._number + n}", "action": "a", "ts": n, **fields} for n in range(number)]
        self._number += number
        with psycopg.connect(self.url) as conn:
            append(conn, events)

    def drain(self) -> None:
        Worker(self.url, self.folder).run(drain=True)

    def rows(self, metric: str) -> list[tuple[Any, ...]]:
        return self.worker.execute(f"SELECT * FROM metrics.{metric} ORDER BY 1".encode()).fetchall()

    def build(self, name: str) -> Build:
        return find(self.worker, "b.projection = %s", name)[-1]


@pytest.fixture
def project(tmp_path: Path, database_url: str) -> Iterator[Project]:
    with worker_connection(database_url) as worker:
        yield Project(tmp_path, database_url, worker)


def test_nobody_writes_the_ledger_through_its_trigger(conn: Connection) -> None:
    """An analyst's own table with the ledger's trigger made the log take a new event for a duplicate."""
    conn.execute("SET ROLE refold_analyst")
    conn.execute(
        "CREATE TEMPORARY TABLE mine"
        " (event_id text, user_id text, action text, ts timestamptz, metadata jsonb, version int)"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(
            "CREATE TRIGGER mine AFTER INSERT ON mine REFERENCING NEW TABLE AS arrived"
            " FOR EACH STATEMENT EXECUTE FUNCTION refold.register_event_ids()"
        )


def test_what_arrives_between_audit_and_healing_is_not_taken_for_orphans(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.append(10)
    project.deploy(pairs=PAIRS, copies=COPIES, counts="SELECT a, count(*) AS n FROM pairs GROUP BY a")
    module = import_module("refold.engine.reconcile.reconcile")
    heal = module.heal

    def late(*arguments: Any, **options: Any) -> Any:
        if project.rows("counts")[0][1] == 10:
            project.append(30)
            project.drain()
        return heal(*arguments, **options)

    monkeypatch.setattr(module, "heal", late)
    table = project.build("pairs").table_name
    project.worker.execute(f"UPDATE refold_builds.{table} SET a = 'wrong' WHERE event_id = 'e9#0'".encode())
    reconcile(project.worker, project.folder)
    assert project.rows("counts") == [("a", 40), ("x", 40)]
    assert project.rows("pairs") == [("a",)] * 40 + [("x",)] * 40


def test_a_transform_below_a_healed_stream_is_computed_again(project: Project) -> None:
    project.append(3)
    project.deploy(pairs=PAIRS, copies=COPIES)
    table = project.build("pairs").table_name
    project.worker.execute(f"UPDATE refold_builds.{table} SET a = 'wrong' WHERE event_id = 'e1#0'".encode())
    copies = project.build("copies").table_name
    project.worker.execute(f"UPDATE refold_builds.{copies} SET b = 'wrong' WHERE event_id = 'e1#0'".encode())
    assert reconcile(project.worker, project.folder).drift == 2
    assert project.rows("copies") == [("a",)] * 3 + [("x",)] * 3


def test_a_range_that_would_end_inside_an_event_is_no_drift(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.append(10)
    project.deploy(pairs=PAIRS, copies=COPIES)
    assert reconcile(project.worker, project.folder, dry_run=True).drift == 0


def test_a_half_loaded_reader_of_a_healed_stream_starts_over(project: Project) -> None:
    project.append(4)
    project.deploy(clicks="SELECT action FROM events")
    table = project.build("clicks").table_name
    project.worker.execute(f"UPDATE refold_builds.{table} SET action = 'b' WHERE event_id = 'e0'".encode())
    project.worker.execute(f"ANALYZE refold_builds.{table}".encode())
    project.write(counts="SELECT action, count(*) AS n FROM clicks GROUP BY action")
    with project.worker.transaction():
        deployment = new_deployment(project.worker, "deploy", promote=True)
        make_builds(project.worker, [load_directory(project.folder)["counts"]], deployment, resumed={})
    counts = project.build("counts")
    compiled = Compiler(project.folder).of(project.worker, counts)
    step = load_step(project.worker, compiled, step=2)
    assert step is not None and not step.finished
    # What an earlier step failed with, and what is kept about rows: of a load that is started over nothing stays.
    project.worker.execute("UPDATE refold.builds SET error = 'too many' WHERE projection = 'counts'")
    project.worker.execute("INSERT INTO refold.checksums VALUES (%s, 0, 0, 7, 7)", (counts.build_id,))
    project.worker.execute("INSERT INTO refold.audits (build_id, rolling) VALUES (%s, true)", (counts.build_id,))
    reconcile(project.worker, project.folder)
    counts = project.build("counts")
    assert (counts.error, counts.load_step, counts.target) == (None, 0, None)
    for kept in ("checksums", "audits"):
        rows = project.worker.execute(f"SELECT FROM refold.{kept} WHERE build_id = %s".encode(), (counts.build_id,))
        assert rows.rowcount == 0
    project.drain()
    assert project.rows("counts") == [("a", 4)]


def test_a_build_that_cannot_go_live_stops_no_worker(project: Project) -> None:
    project.worker.execute(
        "SET ROLE NONE; UPDATE refold.settings SET max_dead_letters = 0, too_many_dead_letters = 'stop';"
        " SET ROLE refold_worker"
    )
    project.deploy(sums="SELECT action, sum((metadata ->> 'n')::int) AS s FROM events GROUP BY action")
    project.deploy(live=False, sums="SELECT action, sum((metadata ->> 'm')::int) AS s FROM events GROUP BY action")
    project.worker.execute("UPDATE refold.deployments SET promote = true")
    project.append(metadata={"n": 1, "m": "none"})
    project.drain()
    assert project.rows("sums") == [("a", 1)]
    assert project.build("sums").error is not None


def test_a_reader_made_while_its_stream_is_replaced(project: Project, database_url: str) -> None:
    project.append(3)
    project.deploy(clicks="SELECT action FROM events")
    rebuild(project.worker, project.folder, ["clicks"], lambda progress: None, promote=False)
    project.write(counts="SELECT action, count(*) AS n FROM clicks GROUP BY action")
    definition = load_directory(project.folder)["counts"]
    with worker_connection(database_url) as other:
        switch = threading.Thread(
            target=go_live, args=(project.worker, project.folder, ["clicks"], lambda progress: None)
        )
        with other.transaction():
            make_builds(other, [definition], new_deployment(other, "deploy", promote=True), resumed={})
            switch.start()
            # Long enough for the switch to have looked; it cannot end before this transaction does.
            switch.join(0.5)
            assert switch.is_alive()
        switch.join()
    project.append()
    project.drain()
    assert project.rows("counts") == [("a", 4)]


def test_an_abandoned_reader_does_not_go_live(project: Project) -> None:
    project.append()
    project.deploy(
        live=False,
        clicks="SELECT action FROM events",
        counts="SELECT action, count(*) AS n FROM clicks GROUP BY action",
    )
    project.worker.execute("UPDATE refold.deployments SET promote = true")
    project.deploy(clicks="SELECT action FROM events WHERE action <> 'b'", counts=None)
    project.drain()
    assert project.build("counts").state == "retired"


def test_a_switch_covers_what_moves_on_while_it_takes_its_locks(
    project: Project, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its transaction id with the first lock; a build paged after that was beyond its reach, every time."""
    project.append(3)
    project.deploy(
        a="SELECT action, count(*) AS n FROM events GROUP BY action",
        b="SELECT action, count(*) AS n, 1 AS one FROM events GROUP BY action, one",
    )
    rebuild(project.worker, project.folder, ["a", "b"], lambda progress: None, promote=False)
    deployment = project.build("a").deployment
    compiler = Compiler(None)
    lock = build_lock
    locked: list[int] = []
    with worker_connection(database_url) as other:

        def and_another_page(conn: Connection, build_id: int, *, wait: bool = False) -> Build | None:
            build = lock(conn, build_id, wait=wait)
            if not locked:
                project.append()
                for one in find(other, "b.state = 'live'"):
                    StepRunner(other, compiler).step(one)
            locked.append(build_id)
            return build

        monkeypatch.setattr(promotion, "lock", and_another_page)
        compiled = StepRunner(project.worker, compiler)
        assert len(promote(project.worker, deployment, compiler, compiled.catch_up)) == 2
    project.append()
    project.drain()
    assert project.rows("a") == [("a", 5)]
    assert project.rows("b") == [("a", 5, 1)]


@pytest.mark.parametrize(
    ("now", "own", "known", "capped"),
    [
        ("90:120:95", 100, "1:1:", "95:100:95"),
        ("90:120:95", 100, "90:110:95,100", "95:110:95,100"),
        ("90:120:95,115", 100, "90:130:95", "95:120:95,100,115"),
        ("90:95:", 100, "90:99:", "90:95:"),
    ],
)
def test_the_cap_knows_what_was_committed(now: str, own: int, known: str, capped: str) -> None:
    assert str(Snapshot.parse(now).capped(own, Snapshot.parse(known))) == capped


def test_a_slow_function_is_not_taken_for_a_frozen_worker(project: Project) -> None:
    project.deploy(slow=SLOW)
    project.append(50)
    Worker(project.url, project.folder, frozen_after=0.5).run(drain=True)
    assert len(project.rows("slow")) == 50


def test_an_interval_keeps_all_its_parts(project: Project) -> None:
    project.append()
    project.deploy(later="SELECT event_id, ts + interval '1 day 12:00:00' AS due FROM events")
    assert str(project.rows("later")[0][1]) == "1970-01-02 12:00:00+00:00"


def test_names_without_quotes_are_in_lower_case(project: Project) -> None:
    project.append()
    project.deploy(
        ranks="-- key: user_id\nSELECT User_Id, row_number() OVER (PARTITION BY user_id ORDER BY event_id) AS Rank"
        " FROM events"
    )
    assert project.rows("ranks") == [(None, 1)]


KEY = "-- key: user_id\n"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("SELECT jsonb_array_elements(metadata -> 'i') AS v FROM events", "several rows"),
        ("SELECT ts < 'now' AS v FROM events", "time of evaluation"),
        ("SELECT 'today'::date AS v FROM events", "time of evaluation"),
        ("SELECT pg_postmaster_start_time() AS v FROM events", "more than its arguments"),
        ("SELECT action, stddev((metadata ->> 'x')::float) AS v FROM events GROUP BY action", "adds floats"),
        ("SELECT action, corr(version, version) AS v FROM events GROUP BY action", "adds floats"),
        ("SELECT event_id, version::bit(4) AS v FROM events", "which has no hash"),
        ("SELECT event_id, to_tsvector('simple', action) AS v FROM events", "v is tsvector, which has no hash"),
        ("SELECT action, avg(ts - timestamptz '2026-01-01Z') AS v FROM events GROUP BY action", "cannot cast"),
        ("SELECT (metadata ->> 'n')::int AS n, stddev(version) AS s FROM events GROUP BY n", "would refuse events"),
        ("SELECT date_trunc('day', ts, 'UTC') AS n, stddev(version) AS s FROM events GROUP BY n", "refuse events"),
        (KEY + "SELECT DISTINCT ON (action) user_id, ts FROM events ORDER BY action, event_id", "DISTINCT ON"),
        (
            KEY + "SELECT a.user_id, b.ts FROM events a JOIN events b ON a.user_id = b.user_id OR a.ts = b.ts",
            "the join lacks",
        ),
        (
            KEY + "SELECT b.user_id FROM events a"
            " LEFT JOIN (SELECT user_id FROM events WHERE action = 'b') b ON a.user_id = b.user_id",
            "is NULL where",
        ),
        (
            KEY + "SELECT user_id, ts FROM events a"
            " WHERE EXISTS (SELECT user_id FROM events b WHERE b.action = a.action AND b.ts < a.ts)",
            "mixes the events",
        ),
        (
            KEY + "SELECT user_id, action FROM (SELECT user_id, action FROM events"
            " UNION ALL SELECT action, user_id FROM events) AS both_ways",
            "different places",
        ),
    ],
)
def test_what_cannot_be_kept_is_refused(project: Project, query: str, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        project.deploy(query=query)
    assert find(project.worker) == []


def test_two_averages_in_one_column(project: Project) -> None:
    project.append(2, user_id="u")
    project.deploy(gap="SELECT action, avg(version) - avg(length(user_id)) AS gap FROM events GROUP BY action")
    assert project.rows("gap") == [("a", 0)]
