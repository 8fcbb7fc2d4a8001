"""Candidates by reader: who sees which build, and what becomes of the views when the metric changes otherwise."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.canary.canary import abort, hold, limit, promote, start, tidy
from refold.engine.canary.check import run
from refold.engine.deployment.drop import drop
from refold.engine.deployment.promote import go_live
from refold.engine.deployment.rename import rename
from refold.engine.deployment.rollback import rollback
from refold.engine.publish.shown import hidden
from refold.engine.publish.switch import drop_superseded
from refold.engine.reconcile.reconcile import reconcile
from refold.errors import BuildError, InputError
from refold.inspect.evidence import seen as seen_in_words
from refold.inspect.lineage.why import why
from refold.store import canaries, incidents
from refold.store.builds.compiled import Compiler
from tests.support.blocks import touched
from tests.support.scratch import Scratch
from tests.support.waiting import wait_until

Connect = Callable[..., psycopg.Connection[Any]]

COUNTS = "SELECT action, count(*) AS events FROM events WHERE {} GROUP BY action"
LIVE, CANDIDATE = [("a", 40)], [("a", 39)]


def candidate(scratch: Scratch, where: str = "event_id <> 'e7'", **options: Any) -> canaries.Canary:
    """Deploys a metric and a candidate of it, and starts a canary."""
    scratch.append(40)
    scratch.deploy(counts=COUNTS.format("true"))
    scratch.deploy(live=False, counts=COUNTS.format(where))
    return start(scratch.worker, Compiler(scratch.folder), "counts", **{"steps": [0, 100], **options})


def seen(conn: psycopg.Connection[Any], canary: str = "", reader: str = "") -> list[tuple[Any, ...]]:
    """Reads the metric as a session of a reader."""
    conn.execute(
        "SELECT set_config('refold.canary', %s, false), set_config('refold.reader', %s, false)", (canary, reader)
    )
    return conn.execute("SELECT * FROM metrics.counts ORDER BY 1").fetchall()


def shows_live(scratch: Scratch, connect: Connect, rows: list[tuple[Any, ...]] = LIVE) -> bool:
    """Whether the plain view of the live build stands, and no trace of a canary's."""
    conn = connect(autocommit=True)
    assert seen(conn, "on") == rows
    assert conn.execute("SELECT FROM pg_views WHERE schemaname = 'metrics_canary'").rowcount == 0
    assert "on_canary" not in str(conn.execute("SELECT pg_get_viewdef('metrics.counts'::regclass)").fetchone())
    return not hidden(scratch.worker, Compiler(scratch.folder)) and not canaries.shown(scratch.worker)


def test_each_reader_sees_one_build(scratch: Scratch, connect: Connect, admin: psycopg.Connection[Any]) -> None:
    candidate(scratch)
    conn = connect(autocommit=True)
    assert seen(conn) == seen(conn, "off") == LIVE
    assert seen(conn, "on") == CANDIDATE
    assert conn.execute("SELECT * FROM metrics_canary.counts").fetchall() == CANDIDATE
    admin.execute("UPDATE refold.canaries SET steps = '{30,100}'")
    readers = [f"reader-{n}" for n in range(300)]
    first = {one for one in readers if seen(conn, reader=one) == CANDIDATE}
    assert 50 < len(first) < 130
    admin.execute("UPDATE refold.canaries SET steps = '{60,100}'")
    assert first < {one for one in readers if seen(conn, reader=one) == CANDIDATE}
    admin.execute("UPDATE refold.canaries SET step = 2")
    assert seen(conn) == CANDIDATE and seen(conn, "off") == LIVE


def test_a_limit_holds_at_once_and_for_every_step(
    scratch: Scratch, connect: Connect, admin: psycopg.Connection[Any]
) -> None:
    candidate(scratch, steps=[50, 100], soak=timedelta(0), expect=["columns: events"])
    conn = connect(autocommit=True)
    readers = [f"reader-{n}" for n in range(100)]

    def share() -> int:
        return sum(seen(conn, reader=one) == CANDIDATE for one in readers)

    assert 30 < share() < 70
    limit(scratch.worker, "counts", 0)
    assert share() == 0 and seen(conn, "on") == CANDIDATE
    run(scratch.worker, Compiler(scratch.folder))
    (waits,) = canaries.open_canaries(scratch.worker)
    assert (waits.step, waits.percent, waits.because) == (1, 0, "it is limited to 0 % of readers")
    limit(scratch.worker, "counts", 60)
    assert waits.since < canaries.open_canaries(scratch.worker)[0].since
    assert 30 < share() < 70
    run(scratch.worker, Compiler(scratch.folder))
    assert canaries.open_canaries(scratch.worker)[0].step == 1
    limit(scratch.worker, "counts", 100)
    run(scratch.worker, Compiler(scratch.folder))
    assert canaries.open_canaries(scratch.worker)[0].step == 2
    run(scratch.worker, Compiler(scratch.folder))
    assert not canaries.open_canaries(scratch.worker) and seen(conn) == CANDIDATE
    with pytest.raises(BuildError, match="no canary of counts"):
        limit(scratch.worker, "counts", 5)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_limit_is_a_percentage(scratch: Scratch, percent: int) -> None:
    candidate(scratch)
    with pytest.raises(InputError, match="is no percentage"):
        limit(scratch.worker, "counts", percent)


def test_members_of_the_role_see_the_candidate(
    scratch: Scratch, connect: Connect, admin: psycopg.Connection[Any]
) -> None:
    candidate(scratch)
    name = f"canary_reader_{admin.info.backend_pid}"
    admin.execute(f"CREATE ROLE {name}; GRANT refold_analyst TO {name}".encode())
    try:
        conn = connect(autocommit=True)
        conn.execute(f"SET ROLE {name}".encode())
        assert seen(conn) == LIVE
        admin.execute(f"GRANT refold_canary TO {name}".encode())
        assert seen(conn) == CANDIDATE and seen(conn, "off") == LIVE
    finally:
        admin.execute(f"REVOKE refold_analyst, refold_canary FROM {name}; DROP ROLE {name}".encode())


def test_the_other_build_is_not_touched(scratch: Scratch, connect: Connect) -> None:
    candidate(scratch)
    conn, watch = connect(autocommit=True), connect(autocommit=True)
    tables = [
        str(name) for (name,) in watch.execute("SELECT table_name FROM refold.builds ORDER BY build_id").fetchall()
    ]
    for setting, chosen, other in (("off", tables[0], tables[1]), ("on", tables[1], tables[0])):
        seen(conn, setting)
        read = touched(watch, conn, lambda: seen(conn, setting))  # noqa: B023
        assert chosen in read and other not in read
    plan = "\n".join(str(row[0]) for row in conn.execute("EXPLAIN SELECT * FROM metrics.counts").fetchall())
    assert plan.count("One-Time Filter") == 2


def test_an_ordered_part_is_read_by_the_index(scratch: Scratch, connect: Connect) -> None:
    """As from the plain view: the planner sees the tables behind the choice."""
    rows = "SELECT event_id AS candidate, max(action) AS candidate_ FROM events WHERE {} GROUP BY event_id"
    scratch.append(40)
    scratch.deploy(listed=rows.format("true"))
    scratch.deploy(live=False, listed=rows.format("event_id <> 'e0'"))
    start(scratch.worker, Compiler(scratch.folder), "listed", steps=[0, 100])
    conn = connect(autocommit=True)
    conn.execute("SET enable_sort = off; SET enable_seqscan = off")
    query = "SELECT * FROM metrics.listed ORDER BY candidate LIMIT 1"
    plan = [str(row[0]) for row in conn.execute(f"EXPLAIN {query}".encode()).fetchall()]
    assert not any("Sort  (" in one or "Subquery" in one for one in plan), "\n".join(plan)
    assert sum("One-Time Filter" in one for one in plan) == 2
    found = []
    for choice in ("off", "on"):
        conn.execute("SELECT set_config('refold.canary', %s, false)", (choice,))
        found.append(conn.execute(query.encode()).fetchone())
    assert found == [("e0", "a"), ("e1", "a")]


def test_only_the_same_columns_are_exposed(scratch: Scratch, connect: Connect) -> None:
    scratch.append(40)
    scratch.deploy(counts=COUNTS.format("true"))
    scratch.deploy(live=False, counts=COUNTS.format("true").replace("count(*)", "sum(1::numeric)"))
    started = start(scratch.worker, Compiler(scratch.folder), "counts", steps=[100])
    assert [one.exposed for one in started.builds] == [False]
    conn = connect(autocommit=True)
    assert seen(conn, "on") == LIVE and conn.execute("SELECT * FROM metrics_canary.counts").fetchall() == LIVE
    abort(scratch.worker, Compiler(scratch.folder), "counts", "enough")
    assert shows_live(scratch, connect)


GRADED = '''
from pydantic import BaseModel
from refold import Event, transform

class Grade(BaseModel):
    action: str
    weight: {kind}

@transform()
def graded(event: Event) -> Grade:
    """A grade of an event."""
    return Grade(action=event.action, weight={weight})
'''


def test_a_transform_and_its_reader_are_one_canary(scratch: Scratch, connect: Connect, tmp_path: Path) -> None:
    scratch.append(40)
    reader = "SELECT action, sum(weight) AS weight FROM graded GROUP BY action"
    scratch.deploy(graded=GRADED.format(kind="int", weight=1), weights=reader)
    scratch.deploy(live=False, graded=GRADED.format(kind="int", weight=2), weights=reader)
    started = start(scratch.worker, Compiler(scratch.folder), "weights", steps=[0, 100])
    assert sorted(started.names) == ["graded", "weights"] and all(one.exposed for one in started.builds)
    conn = connect(autocommit=True)
    both = "SELECT (SELECT sum(weight) FROM metrics.weights), (SELECT sum(weight) FROM metrics.graded)"
    for setting, expected in (("on", (80, 80)), ("off", (40, 40))):
        conn.execute("SELECT set_config('refold.canary', %s, false)", (setting,))
        assert conn.execute(both).fetchone() == expected
    # A worker with the code of neither build, too, knows the views for what they are.
    (tmp_path / "empty").mkdir()
    without = Compiler(tmp_path / "empty")
    assert not hidden(scratch.worker, without)
    abort(scratch.worker, without, "graded", "wrong")
    assert conn.execute(both).fetchone() == (40, 40)
    assert not canaries.shown(scratch.worker) and not hidden(scratch.worker, without)
    assert {scratch.build("graded").state, scratch.build("weights").state} == {"retired"}
    scratch.deploy(live=False, graded=GRADED.format(kind="str", weight="'heavy'"), weights=None)
    (one,) = start(scratch.worker, Compiler(scratch.folder), "graded").builds
    assert not one.exposed
    assert conn.execute("SELECT DISTINCT weight FROM metrics_canary.graded").fetchall() == [("heavy",)]


def test_what_refold_says_is_about_the_live_build(scratch: Scratch) -> None:
    candidate(scratch, steps=[100])
    scratch.worker.execute("SET refold.canary = 'on'")
    answer = why(scratch.worker, Compiler(scratch.folder), "counts", {"action": "a"})
    assert answer.same and answer.events == 40


READS = re.compile(r"(FROM|JOIN|UPDATE|INTO) metrics\.|Identifier\(\"metrics\"", re.IGNORECASE)
MAY = {
    "inspect/lineage/why.py": "inspect/lineage/snapshot.py",
    "inspect/lineage/where.py": "inspect/lineage/snapshot.py",
    "dashboard/pages/metric.py": "dashboard/pages/metric.py",
}
"""Modules that may read rows of views in `metrics`, with the one that turns the canary off; the demo is an analyst."""


def test_nobody_else_reads_the_views() -> None:
    root = Path(__file__).parents[3] / "core/refold"
    readers = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if READS.search(re.sub(r'"""(.|\n)*?"""|`[^`]*`', "", path.read_text()))
        and path.relative_to(root).parts[0] not in ("demo", "cli")
    }
    messages = {"model/projection/hints.py", "model/projection/select.py"}
    assert readers - messages == MAY.keys()
    assert all("canaries.off(conn)" in (root / path).read_text() for path in MAY.values())


def test_a_view_that_was_replaced_is_made_again_in_its_form(scratch: Scratch, connect: Connect) -> None:
    candidate(scratch)
    compiler = Compiler(scratch.folder)
    assert not hidden(scratch.worker, compiler)
    scratch.worker.execute(
        """CREATE OR REPLACE VIEW metrics.counts AS SELECT 'a' COLLATE "C" AS action, 1::bigint AS events"""
    )
    assert hidden(scratch.worker, compiler) == ["counts"]
    reconcile(scratch.worker, compiler)
    conn = connect(autocommit=True)
    assert seen(conn, "on") == CANDIDATE and seen(conn) == LIVE and not hidden(scratch.worker, compiler)
    scratch.worker.execute("DROP VIEW metrics.counts")
    reconcile(scratch.worker, compiler)
    assert seen(conn, "on") == CANDIDATE


def test_promote_by_the_canary_and_by_the_usual_command(scratch: Scratch, connect: Connect) -> None:
    candidate(scratch)
    promote(scratch.worker, scratch.folder, "counts", lambda progress: None)
    assert shows_live(scratch, connect, CANDIDATE)
    assert [one.state for one in canaries.find(scratch.worker)] == ["promoted"]
    scratch.deploy(live=False, counts=COUNTS.format("event_id NOT IN ('e7', 'e8')"))
    start(scratch.worker, Compiler(scratch.folder), "counts")
    go_live(scratch.worker, scratch.folder, [], lambda progress: None)
    assert shows_live(scratch, connect, [("a", 38)])
    assert [one.state for one in canaries.find(scratch.worker)] == ["promoted", "promoted"]


def test_rollback_drop_and_rename(scratch: Scratch, connect: Connect) -> None:
    candidate(scratch)
    with pytest.raises(BuildError, match="not live yet"):
        rename(scratch.worker, scratch.folder, "counts", "numbers")
    promote(scratch.worker, scratch.folder, "counts", lambda progress: None)
    scratch.deploy(live=False, counts=COUNTS.format("event_id > 'e2'"))
    start(scratch.worker, Compiler(scratch.folder), "counts")
    rollback(scratch.worker, scratch.folder, "counts", lambda progress: None)
    assert shows_live(scratch, connect)
    assert [one.state for one in canaries.find(scratch.worker)] == ["promoted", "superseded"]
    scratch.deploy(live=False, counts=COUNTS.format("event_id > 'e3'"))
    start(scratch.worker, Compiler(scratch.folder), "counts")
    drop(scratch.worker, ["counts"])
    assert not canaries.shown(scratch.worker)
    assert connect().execute("SELECT FROM pg_views WHERE viewname = 'counts'").rowcount == 0


def test_a_later_deploy_ends_it(scratch: Scratch, connect: Connect) -> None:
    candidate(scratch, steps=[100])
    scratch.deploy(live=False, counts=COUNTS.format("event_id > 'e2'"))
    conn = connect(autocommit=True)
    # At once, though the view still has both branches.
    assert seen(conn) == LIVE
    drop_superseded(scratch.worker, keep=0)
    run(scratch.worker, Compiler(scratch.folder))
    assert shows_live(scratch, connect)
    assert [one.state for one in canaries.find(scratch.worker)] == ["superseded"]
    assert drop_superseded(scratch.worker, keep=0)


def test_analysts_views_on_top_stay(scratch: Scratch, connect: Connect) -> None:
    candidate(scratch)
    scratch.worker.execute("CREATE VIEW metrics.total AS SELECT sum(events) AS events FROM metrics.counts")
    conn = connect(autocommit=True)
    conn.execute("SET refold.canary = 'on'")
    assert conn.execute("SELECT events FROM metrics.total").fetchone() == (39,)
    promote(scratch.worker, scratch.folder, "counts", lambda progress: None)
    conn.execute("SET refold.canary = 'off'")
    assert conn.execute("SELECT events FROM metrics.total").fetchone() == (39,)


def test_abort_and_what_is_refused(scratch: Scratch, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate(scratch, steps=[100])
    compiler = Compiler(scratch.folder)
    with pytest.raises(BuildError, match="runs already"):
        start(scratch.worker, compiler, "counts")
    assert hold(scratch.worker, "counts", "I look").state == "held"
    # A session that holds the view does not keep readers with the candidate.
    held, conn = connect(), connect(autocommit=True)
    held.execute("SELECT * FROM metrics.counts")
    monkeypatch.setattr("refold.engine.canary.canary.LOCK_WAIT_S", 0.3)
    with pytest.raises(BuildError, match="has held"):
        abort(scratch.worker, compiler, "counts", "wrong")
    assert seen(conn) == LIVE
    held.rollback()
    tidy(scratch.worker, compiler)
    assert shows_live(scratch, connect) and scratch.build("counts").state == "retired"
    for options, error in (({"steps": [5, 1]}, InputError), ({"expect": ["nonsense"]}, InputError)):
        with pytest.raises(error):
            start(scratch.worker, compiler, "counts", **options)
    with pytest.raises(BuildError, match="no build of counts to promote"):
        start(scratch.worker, compiler, "counts")


# Rules


def test_it_goes_live_by_its_steps(scratch: Scratch, connect: Connect) -> None:
    candidate(scratch, soak=timedelta(0), expect=["columns: events"])
    compiler = Compiler(scratch.folder)
    run(scratch.worker, compiler)
    (one,) = canaries.find(scratch.worker)
    assert (one.state, one.step) == ("running", 2)
    run(scratch.worker, compiler)
    assert [one.state for one in canaries.find(scratch.worker)] == ["promoted"]
    assert shows_live(scratch, connect, CANDIDATE)


def test_without_expectations_a_person_promotes(scratch: Scratch) -> None:
    candidate(scratch, soak=timedelta(0), steps=[100])
    run(scratch.worker, Compiler(scratch.folder))
    (one,) = canaries.find(scratch.worker)
    assert one.state == "running" and one.because is not None and "--expect" in one.because


def test_a_wrong_row_among_many_aborts_it(scratch: Scratch, connect: Connect) -> None:
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": f"{n}", "action": "a", "user_id": f"u{n}", "ts": n} for n in range(20_000)])
    text = "SELECT user_id, {} AS n FROM events"
    scratch.deploy(counts=text.format("1"))
    scratch.deploy(live=False, counts=text.format("CASE WHEN user_id = 'u777' THEN 2 ELSE 1 END"))
    compiler = Compiler(scratch.folder)
    start(scratch.worker, compiler, "counts", steps=[100], soak=timedelta(0), expect=["modified <= 0.001 %"])
    run(scratch.worker, compiler)
    assert [one.state for one in canaries.find(scratch.worker)] == ["aborted"]
    (incident,) = incidents.open_incidents(scratch.worker, "canary_aborted")
    assert "1 of 20,000 rows are modified" in incident.evidence["because"]
    (sample,) = incident.evidence["differences"]["counts"]["samples"]
    assert (sample["before"]["n"], sample["after"]["n"]) == ("1", "2")
    assert scratch.build("counts").state == "retired"
    scratch.deploy(live=False, counts=text.format("CASE WHEN user_id = 'u778' THEN 2 ELSE 1 END"))
    run(scratch.worker, compiler)
    assert not incidents.open_incidents(scratch.worker, "canary_aborted")


def test_dead_letters_abort_it(scratch: Scratch) -> None:
    candidate(scratch, "1 / (length(coalesce(user_id, '')) - 9) < 9", steps=[100], expect=["columns: events"])
    run(scratch.worker, Compiler(scratch.folder))
    assert [one.state for one in canaries.find(scratch.worker)] == ["running"]
    with psycopg.connect(scratch.url) as conn:
        append(conn, [{"id": "late", "action": "a", "user_id": "ninechars", "ts": 0}])
    scratch.drain()
    run(scratch.worker, Compiler(scratch.folder))
    (one,) = canaries.find(scratch.worker)
    assert one.state == "aborted" and one.because == "the candidate of counts cannot process 1 event"


def test_letters_from_before_the_canary_are_named_first(scratch: Scratch) -> None:
    scratch.append(40)
    scratch.append(3, user_id="ninechars")
    scratch.deploy(counts=COUNTS.format("true"))
    scratch.deploy(live=False, counts=COUNTS.format("1 / (length(coalesce(user_id, '')) - 9) < 9"))
    start(scratch.worker, Compiler(scratch.folder), "counts", steps=[100], expect=["identical"])
    run(scratch.worker, Compiler(scratch.folder))
    (one,) = canaries.find(scratch.worker)
    assert one.because == "the candidate of counts cannot process 3 events: the builds are not identical"


def test_the_incident_ends_when_the_change_is_taken_back(scratch: Scratch) -> None:
    candidate(scratch, steps=[40], expect=["identical"])
    run(scratch.worker, Compiler(scratch.folder))
    assert incidents.open_incidents(scratch.worker, "canary_aborted")
    run(scratch.worker, Compiler(scratch.folder))
    assert incidents.open_incidents(scratch.worker, "canary_aborted"), "nothing has changed since"
    scratch.deploy(counts=COUNTS.format("true"))
    assert not incidents.open_incidents(scratch.worker, "canary_aborted")
    (ended,) = incidents.find(scratch.worker, "i.kind = 'canary_aborted'")
    assert (ended.resolved_by, ended.outcome) == (
        "refold deploy",
        {"because": "the file is that of the live build again"},
    )


def test_the_incident_ends_with_a_later_deploy(scratch: Scratch) -> None:
    candidate(scratch, steps=[40], expect=["identical"])
    run(scratch.worker, Compiler(scratch.folder))
    scratch.deploy(counts=COUNTS.format("event_id <> 'e8'"))
    run(scratch.worker, Compiler(scratch.folder))
    assert not incidents.open_incidents(scratch.worker, "canary_aborted")


def test_the_incident_of_a_candidate_that_nobody_saw_says_so(scratch: Scratch) -> None:
    scratch.append(40)
    scratch.deploy(counts=COUNTS.format("true"))
    scratch.deploy(live=False, counts=COUNTS.format("true").replace("count(*)", "sum(1::numeric)"))
    started = start(scratch.worker, Compiler(scratch.folder), "counts", steps=[40], expect=["identical"])
    assert started.readers == "no reader" and started.apart == ["counts"]
    run(scratch.worker, Compiler(scratch.folder))
    (incident,) = incidents.open_incidents(scratch.worker, "canary_aborted")
    assert "seen by no reader, as its columns differ" in seen_in_words("canary_aborted", incident.evidence)


@pytest.mark.slow
def test_an_abort_that_is_killed_ends_all_the_same(scratch: Scratch, connect: Connect) -> None:
    candidate(scratch, steps=[100])
    conn = connect(autocommit=True)
    for point, before in (("canary_shown", None), ("canary_ended", LIVE), ("canary_alone", LIVE)):
        command = "start" if point == "canary_shown" else "abort"
        if point == "canary_shown":
            abort(scratch.worker, Compiler(scratch.folder), "counts", "again")
            scratch.deploy(live=False, counts=COUNTS.format("event_id <> 'e8'"))
        elif not canaries.open_canaries(scratch.worker):
            scratch.deploy(live=False, counts=COUNTS.format("event_id <> 'e9'"))
            start(scratch.worker, Compiler(scratch.folder), "counts", steps=[100])
        done = subprocess.run(
            [sys.executable, "-m", "refold", "canary", command, "counts", "--projections", str(scratch.folder)],
            env={"REFOLD_DATABASE_URL": scratch.url, "REFOLD_CRASH_AT": point, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == -9, done.stderr
        if before is not None:
            assert seen(conn) == before
        wait_until(lambda: tidy(scratch.worker, Compiler(scratch.folder)) is not None)
        if command == "start":
            assert not canaries.open_canaries(scratch.worker)
            start(scratch.worker, Compiler(scratch.folder), "counts", steps=[100])
        else:
            assert shows_live(scratch, connect)
