"""`refold explain`: the plan, and the SQL that really runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from refold.store.schema.resources import projections_dir

from .conftest import Refold

Metric = Callable[[str, str], Path]

COUNTS = """-- What people do.
SELECT action, count(*) AS events -- How often
FROM events WHERE action LIKE 'a%' GROUP BY action
"""


def test_a_file_needs_no_database(bare: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    done = bare("explain", "counts")
    assert done.status == 0
    facts = dict(line.split(maxsplit=1) for line in done.out.splitlines()[:8])
    assert (facts["upkeep"], facts["key"], facts["what"]) == ("merge", "action", "What people do.")
    assert facts["reads"] == "events (action)"
    for section in ("create", "load", "page", "audit", "heal", "view"):
        assert f"-- {section}: " in done.out
    assert "LIKE 'a%'" in done.out
    assert "%%" not in done.out


@pytest.mark.parametrize("name", sorted(path.stem for path in projections_dir().glob("*.*") if path.stem[0] != "_"))
def test_everything_that_comes_with_refold(bare: Refold, name: str) -> None:
    plan = bare("explain", name, "--json").json
    assert plan["projection"] == name
    assert plan["because"]
    assert {"create", "page", "audit", "view"} <= {part["name"] for part in plan["statements"]}


def test_the_sql_for_machines_is_sql(
    bare: Refold, metric: Metric, conn: psycopg.Connection[tuple[object, ...]]
) -> None:
    metric("counts", COUNTS)
    statements = {part["name"]: part["sql"] for part in bare("explain", "counts", "--json").json["statements"]}
    conn.execute(statements["create"])
    assert conn.execute(statements["view"]).fetchall() == []


def test_what_is_deployed_may_differ_from_the_file(refold: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    refold("deploy")
    metric("counts", "SELECT action, count(DISTINCT user_id) AS users FROM events GROUP BY action")
    assert refold("explain", "counts", "--json").json["upkeep"] == "members"
    deployed = refold("explain", "counts", "--deployed", "--json").json
    assert deployed["upkeep"] == "merge"
    assert deployed["source"].startswith("refold_builds.counts__")
    assert json.dumps(deployed).count(deployed["source"].removeprefix("refold_builds.")) > 3


def test_an_unknown_name_names_the_known(refold: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    for options in ([], ["--deployed"]):
        if options:
            refold("deploy")
        done = refold("explain", "count", *options)
        assert done.status == 2
        assert "Did you mean counts?" in done.err


def test_a_view_on_an_event_stream(refold: Refold, bare: Refold, metric: Metric) -> None:
    """What each read of it costs, and the metric that would keep it; deploy, its dry run and promote say so too."""
    metric("clicks", "SELECT event_id, user_id FROM events WHERE action = 'click'")
    metric("views", "SELECT user_id, ts FROM events WHERE action = 'view'")
    metric("counts", COUNTS)
    folder = Path("sql/views")
    folder.mkdir(parents=True)
    select = "SELECT user_id, count(*) AS seen FROM metrics.views GROUP BY user_id"
    (folder / "per_user.sql").write_text(f"CREATE OR REPLACE VIEW metrics.per_user AS {select}")
    (folder / "top.sql").write_text("CREATE OR REPLACE VIEW metrics.top AS SELECT max(seen) FROM metrics.per_user")
    (folder / "found.sql").write_text("CREATE VIEW metrics.found AS SELECT * FROM metrics.clicks WHERE event_id = '1'")
    (folder / "sums.sql").write_text("CREATE OR REPLACE VIEW metrics.sums AS SELECT sum(events) FROM metrics.counts")
    for command in (["deploy", "--dry-run"], ["deploy", "--no-promote"], ["promote"], ["deploy"]):
        done = refold(*command)
        assert done.status == 0, done.err
        told = {line.split()[5]: line for line in done.err.splitlines() if line.startswith("each read of the view ")}
        # That of one event goes by an index, which a dry run makes too.
        assert set(told) == (set() if "--no-promote" in command else {"per_user", "top"}), command
        if told:
            assert "`refold explain per_user`" in told["per_user"]
            assert "reads all of views through per_user" in told["top"]
        assert ["is yet to be built" in one for one in told.values()] == ["--dry-run" in command] * len(told)
    metric("clicks", "SELECT event_id, user_id, ts FROM events WHERE action = 'click'")
    for command in (["deploy", "--dry-run"], ["deploy", "--no-promote"], ["promote"]):
        scans = refold(*command, "--json").json.get("scans")
        assert [(one["view"], one["stream"], one["through"], one["new"]) for one in scans] == (
            []
            if "--no-promote" in command
            else [("per_user", "views", [], False), ("top", "views", ["per_user"], False)]
        )

    shown = bare("explain", "per_user")
    assert shown.status == 0, shown.err
    assert "each read   reads one row for each event" in shown.out
    assert "save it as projections/per_user.sql, and remove the view" in shown.out
    metric("kept", shown.out.partition("remove the view\n")[2])
    assert bare("explain", "kept", "--json").json["upkeep"] == "merge"
    assert "each read   reads all of views: now about 0 rows" in refold("explain", "per_user", "--deployed").out
    assert bare("explain", "sums", "--json").json == {
        "view": "sums", "source": str(Path("sql/views/sums.sql").resolve()), "reads_streams": [], "scans": None,
        "metric": None,
    }  # fmt: skip


def test_a_file_that_makes_no_view_is_not_explained_as_one(refold: Refold, metric: Metric) -> None:
    metric("views", "SELECT user_id, ts FROM events WHERE action = 'view'")
    Path("sql/views").mkdir(parents=True)
    Path("sql/views/seen.sql").write_text("SELECT count(*) AS seen FROM metrics.views")
    refused = refold("explain", "seen")
    assert refused.status == 1
    assert "ql:1: SELECT count( … is a query, but makes no view" in refused.err
