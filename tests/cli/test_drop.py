"""`refold drop` and `refold rename`: a metric goes, or is called otherwise, and nothing is built for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from .conftest import Refold

Metric = Callable[[str, str], Path]
Record = Callable[..., None]

CLICKS = "SELECT user_id, action, ts FROM events WHERE action <> 'ping'"
PER_ACTION = "SELECT action, count(*) AS events FROM clicks GROUP BY action"
COUNTS = "SELECT action, count(*) AS n FROM events GROUP BY action"


@pytest.fixture
def project(refold: Refold, metric: Metric, record: Record) -> Refold:
    """A stream, a metric on it, one beside it, and a view on that; all live."""
    metric("clicks", CLICKS)
    metric("per_action", PER_ACTION)
    metric("counts", COUNTS)
    Path("sql/views").mkdir(parents=True)
    Path("sql/views/top.sql").write_text("CREATE OR REPLACE VIEW metrics.top AS SELECT action, n FROM metrics.counts")
    record("view=ann", "ping=bob")
    assert refold("deploy").status == 0
    return refold


def csv(refold: Refold, query: str) -> list[str]:
    """The rows of an analyst's query."""
    return refold("query", query, "--csv").out.splitlines()[1:]


def live(refold: Refold) -> list[str]:
    return [build["projection"] for build in refold("status", "--json").json["builds"]]


def test_what_others_read_is_not_dropped(project: Refold) -> None:
    for dry_run in ([], ["--dry-run"]):
        for name, message, remedy in [
            ("clicks", "per_action reads clicks", "refold drop clicks per_action"),
            ("counts", "metrics.top reads metrics.counts", "DROP VIEW metrics.top;"),
            ("count", "no projection named count is live. Did you mean counts?", "Live: "),
        ]:
            done = project("drop", name, *dry_run)
            assert (done.status, done.out) == (2, "")
            assert message in done.err
            assert remedy in done.err
    assert sorted(live(project)) == ["clicks", "counts", "per_action"]


def test_dropped_and_brought_back(project: Refold, record: Record) -> None:
    planned = project("drop", "per_action", "clicks", "--dry-run")
    assert planned.status == 0, planned.err
    assert [line.split()[:2] for line in planned.out.splitlines()[1:]] == [
        ["clicks", "dropped"],
        ["per_action", "dropped"],
    ]
    assert len(live(project)) == 3

    dropped = project("drop", "per_action", "clicks")
    assert dropped.status == 0, dropped.err
    assert "clicks, per_action: dropped" in dropped.out
    assert "projections/clicks.sql still defines it" in dropped.err
    assert live(project) == ["counts"]
    assert "does not exist" in project("query", "TABLE per_action").err
    assert project("reconcile").status == 0

    # As after a deploy: what came meanwhile is there.
    record("view=eve")
    back = project("rollback", "per_action", "--json")
    assert back.status == 0, back.err
    assert [(step["projection"], step["action"]) for step in back.json["plan"]] == [
        ("clicks", "comes back"),
        ("per_action", "comes back"),
    ]
    assert csv(project, "SELECT * FROM per_action") == ["view,2"]
    assert "unchanged" in project("deploy", "--dry-run").out
    assert "is its first" in project("rollback", "per_action").err

    # Without its file it stays away.
    project("drop", "per_action", "--json")
    Path("projections/per_action.sql").unlink()
    assert "per_action" not in project("deploy").out
    assert live(project) == ["clicks", "counts"]


def test_the_table_of_a_dropped_metric_goes_in_the_end(project: Refold, admin: psycopg.Connection) -> None:
    project("drop", "per_action")
    admin.execute("UPDATE refold.builds SET retired_at = now() - interval '91 days' WHERE projection = 'per_action'")
    Path("projections/per_action.sql").unlink()
    project("deploy")
    assert admin.execute("SELECT state FROM refold.builds WHERE projection = 'per_action'").fetchall() == [("dropped",)]
    assert "no projection named per_action is live" in project("rollback", "per_action").err


def test_renamed_with_its_rows(project: Refold, record: Record, metric: Metric) -> None:
    before = project("rename", "counts", "actions", "--dry-run")
    assert (before.status, before.out.split(":")[0]) == (0, "would be renamed")
    Path("projections/counts.sql").rename("projections/actions.sql")
    assert "`refold rename counts actions`" in project("deploy", "--dry-run").out
    renamed = project("rename", "counts", "actions")
    assert renamed.status == 0, renamed.err
    assert "the view metrics.top reads it and keeps working" in renamed.err
    Path("sql/views/top.sql").write_text("CREATE OR REPLACE VIEW metrics.top AS SELECT action, n FROM metrics.actions")

    # The deploy finds everything as it is, workers and audits go on with it, and the old name is free.
    record("view=eve")
    assert "Nothing to do: the live metrics match the files." in project("deploy").out
    assert project("worker", "--drain").status == 0
    assert csv(project, "SELECT * FROM top ORDER BY 1") == ["ping,1", "view,2"]
    assert project("reconcile").status == 0
    metric("counts", COUNTS)
    assert "live: counts" in project("deploy").out
    assert csv(project, "SELECT * FROM counts ORDER BY 1") == ["ping,1", "view,2"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clicks", "steps", "per_action reads clicks by its name"),
        ("counts", "clicks", "there is a metric clicks already"),
        ("counts", "top", "there is a view metrics.top already"),
        ("counts", "Counts", "Counts cannot be the name of a projection"),
        ("count", "actions", "Did you mean counts?"),
    ],
)
def test_what_cannot_be_renamed(project: Refold, old: str, new: str, message: str) -> None:
    for dry_run in ([], ["--dry-run"]):
        done = project("rename", old, new, *dry_run)
        assert (done.status, done.out) == (2, "")
        assert message in done.err


GRADED = """
from pydantic import BaseModel
from refold import Event, transform
from _limits import LIMIT

class Graded(BaseModel):
    event_id: str
    user_id: str | None
    grade: str

@transform()
def graded(event: Event) -> Graded:
    # What is graded here.
    grade = "big" if event.metadata.get("n", 0) >= LIMIT else "small"
    return Graded(event_id=event.event_id, user_id=event.user_id, grade=grade)
"""
LOUD = """
from pydantic import BaseModel
from refold import transform

class Grade(BaseModel):
    event_id: str
    grade: str

@transform(reads="graded")
def loud(row: Grade) -> Grade:
    return Grade(event_id=row.event_id, grade=row.grade.upper())
"""
READERS = {
    "grades.sql": "SELECT grade, count(*) AS n FROM graded GROUP BY grade",
    "bests.sql": "SELECT user_id, max(graded.grade) AS best FROM graded WHERE user_id <> 'x' GROUP BY user_id",
    "loud.py": LOUD,
    "louds.sql": "SELECT grade, count(*) AS n FROM loud GROUP BY grade",
}


def written(name: str, code: str) -> None:
    """A transform called so, and all that reads it, also at second hand."""
    folder = Path("projections")
    folder.mkdir(exist_ok=True)
    for old in [*folder.glob("graded.py"), *folder.glob("scored.py")]:
        old.unlink()
    (folder / "_limits.py").write_text("LIMIT = 10\n")
    for file, text in {"graded.py": code, **READERS}.items():
        (folder / file.replace("graded", name)).write_text(text.replace("graded", name))


def figures(refold: Refold) -> list[list[str]]:
    return [sorted(csv(refold, f"SELECT * FROM {name}")) for name in ("grades", "louds", "bests")]


@pytest.mark.slow
def test_a_transform_is_renamed_with_all_that_reads_it(
    refold: Refold, record: Record, admin: psycopg.Connection
) -> None:
    written("graded", GRADED)
    record("view=ann", metadata={"n": 3})
    assert refold("deploy").status == 0
    second = GRADED.replace('"small"', '"tiny"')
    written("graded", second)
    assert refold("deploy").status == 0
    tables = admin.execute("SELECT table_name FROM refold.builds WHERE state = 'live' ORDER BY 1").fetchall()

    # The files come first, all of them, and nothing else may be changed in them.
    early = refold("rename", "graded", "scored")
    assert (early.status, early.out) == (2, "")
    assert "scored.py does not hold the deployed code" in early.err
    written("scored", second.replace("tiny", "little"))
    assert "does not hold the deployed code" in refold("rename", "graded", "scored", "--dry-run").err
    written("scored", second)
    Path("projections/grades.sql").write_text(READERS["grades.sql"])
    assert "grades reads graded by its name" in refold("rename", "graded", "scored").err

    written("scored", second)
    assert refold("rename", "graded", "scored", "--dry-run").status == 0
    renamed = refold("rename", "graded", "scored")
    assert renamed.status == 0, renamed.err
    assert "Nothing to do: the live metrics match the files." in refold("deploy").out
    assert admin.execute("SELECT table_name FROM refold.builds WHERE state = 'live' ORDER BY 1").fetchall() == tables

    # Workers with the new files go on with all of it.
    record("view=bob", metadata={"n": 30})
    drained = refold("worker", "--drain")
    assert drained.status == 0, drained.err
    assert figures(refold) == [["big,1", "tiny,1"], ["BIG,1", "TINY,1"], ["ann,tiny", "bob,big"]]
    assert refold("reconcile", "--depth", "deep").status == 0

    # And so does what went before, with the code of then, under the name of now; and back again.
    assert "needs the code that it was deployed with" in refold("rollback", "scored").err
    written("scored", GRADED)
    back = refold("rollback", "scored")
    assert back.status == 0, back.err
    assert figures(refold) == [["big,1", "small,1"], ["BIG,1", "SMALL,1"], ["ann,small", "bob,big"]]
    written("scored", second)
    forward = refold("rollback", "scored")
    assert forward.status == 0, forward.err
    assert "Nothing to do: the live metrics match the files." in refold("deploy").out
    assert refold("rebuild", "scored", "--cascade").status == 0
    assert figures(refold) == [["big,1", "tiny,1"], ["BIG,1", "TINY,1"], ["ann,tiny", "bob,big"]]


def test_files_in_folders_and_in_capitals_are_found(project: Refold) -> None:
    """Each command that names a metric's file finds it as `refold deploy` does."""
    Path("projections/sales").mkdir()
    Path("projections/per_action.sql").rename("projections/sales/per_action.SQL")
    dropped = project("drop", "per_action")
    assert "projections/sales/per_action.SQL still defines it" in dropped.err
    assert project("rollback", "per_action").status == 0
    renamed = project("rename", "per_action", "actions")
    assert "projections/sales/per_action.SQL still defines per_action" in renamed.err


def test_a_rollback_tells_what_the_next_deploy_would_undo(project: Refold, metric: Metric) -> None:
    # The file has the definition that came back: nothing to tell.
    project("drop", "per_action")
    assert "per_action" not in project("rollback", "per_action").err

    project("drop", "per_action")
    file = Path("projections/per_action.sql")
    text = file.read_text()
    file.unlink()
    assert "no file defines per_action here" in project("rollback", "per_action").err
    assert "per_action" in live(project)

    file.write_text(text.replace("count(*)", "count(user_id)"))
    assert project("deploy").status == 0
    assert "per_action.sql does not have the definition of the live build" in project("rollback", "per_action").err
    assert "changed" in project("deploy", "--dry-run").out


def test_a_rollback_names_the_file_that_was_changed_and_not_those_that_follow(project: Refold, metric: Metric) -> None:
    seen = "SELECT event_id, action{more} FROM events"
    Path("projections/seen.sql").write_text(seen.format(more=""))
    Path("projections/of_seen.sql").write_text("SELECT action, count(*) AS n FROM seen GROUP BY action")
    assert project("deploy").status == 0
    Path("projections/seen.sql").write_text(seen.format(more=", ts"))
    assert project("deploy").status == 0
    told = project("rollback", "seen").err
    assert "seen.sql does not have the definition of the live build" in told
    assert "of_seen.sql" not in told
    # Changed itself, too.
    Path("projections/of_seen.sql").write_text("SELECT action, count(*) AS m FROM seen GROUP BY action")
    assert project("deploy").status == 0
    assert "of_seen.sql does not have" in project("rollback", "seen").err
