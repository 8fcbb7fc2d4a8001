"""`refold init`, `deploy`, `rebuild`, `promote`, `rollback`: from a file to a metric, and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .conftest import Refold

Connection = psycopg.Connection[Any]

Metric = Callable[[str, str], Path]
Record = Callable[..., None]

COUNTS = "SELECT action, count(*) AS events FROM events GROUP BY action"
USERS = "SELECT action, count(*) AS events, count(DISTINCT user_id) AS users FROM events GROUP BY action"


def csv(refold: Refold, query: str) -> list[str]:
    done = refold("query", query, "--csv")
    assert done.status == 0, done.err
    return done.out.splitlines()[1:]


def test_a_newcomer_gets_from_nothing_to_a_metric_of_their_own(refold: Refold, record: Record) -> None:
    made = refold("init", "shop")
    assert made.status == 0
    assert "refold deploy" in made.out
    os.chdir("shop")
    record("purchase=ann", "purchase=bob", metadata={"amount": 5})
    deployed = refold("deploy")
    assert deployed.status == 0, deployed.err
    assert "live: purchases_by_day" in deployed.out
    assert "views: purchases_by_month" in deployed.out
    assert csv(refold, "SELECT * FROM purchases_by_month") == ["2026-01-01,2,10"]

    Path("projections/actions.sql").write_text(f"-- What people do.\n{COUNTS}\n")
    deployed = refold("deploy")
    assert deployed.status == 0, deployed.err
    assert [line.split()[:2] for line in deployed.out.splitlines()[1:3]] == [
        ["actions", "new"],
        ["purchases_by_day", "unchanged"],
    ]
    assert csv(refold, "SELECT * FROM actions") == ["purchase,2"]


def test_the_example_of_a_capture_is_left_alone_until_it_is_renamed(refold: Refold, admin: Connection) -> None:
    refold("init", ".")
    deployed = refold("deploy")
    assert (deployed.status, "capture" in deployed.out + deployed.err) == (0, False)
    assert "captures/orders.toml.example" in Path("README.md").read_text()
    admin.execute(
        "CREATE TABLE public.orders (id bigint PRIMARY KEY, customer_id bigint, status text, amount numeric,"
        " created_at timestamptz DEFAULT now())"
    )
    Path("captures/orders.toml.example").rename("captures/orders.toml")
    deployed = refold("deploy")
    assert deployed.status == 0, deployed.err
    assert "orders: captured" in deployed.out
    admin.execute("INSERT INTO public.orders (id, customer_id, status, amount) VALUES (1, 7, 'new', 5)")
    admin.execute("UPDATE public.orders SET status = 'paid'")
    rows = admin.execute("SELECT user_id, action, metadata FROM refold.events ORDER BY position").fetchall()
    assert rows == [("7", "order placed", {"amount": 5}), ("7", "order paid", {"to": "paid", "from": "new"})]


def test_init_overwrites_nothing(refold: Refold) -> None:
    refold("init", ".")
    Path("README.md").write_text("mine")
    again = refold("init", ".")
    assert again.status == 2
    assert "exist already" in again.err
    assert "README.md" in again.err
    assert Path("README.md").read_text() == "mine"


def test_init_can_bring_what_comes_with_refold(refold: Refold) -> None:
    assert refold("init", "shop", "--starters").status == 0
    os.chdir("shop")
    deployed = refold("deploy", "--json")
    assert deployed.status == 0, deployed.err
    assert {"enriched_events", "funnel_stages", "purchases_by_day"} <= {
        b["projection"] for b in deployed.json["builds"]
    }
    assert {"retention_by_cohort", "purchases_by_month"} <= set(deployed.json["views"])


def test_a_dry_run_changes_nothing(refold: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    planned = refold("deploy", "--dry-run")
    assert planned.status == 0
    assert " ".join(planned.out.splitlines()[1].split()) == "counts new merge events no metric has this name yet"
    assert refold("status", "--json").json["builds"] == []


def test_the_plan_for_machines(refold: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    (step,) = refold("deploy", "--dry-run", "--json").json["plan"]
    assert step == {
        "projection": "counts",
        "action": "new",
        "because": "no metric has this name yet",
        "upkeep": "merge",
        "reads": "events",
        "file": "projections/counts.sql",
    }


def test_nothing_to_do(refold: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    refold("deploy")
    again = refold("deploy")
    assert again.status == 0
    assert "Nothing to do: the live metrics match the files." in again.out


def test_a_folder_without_projections_is_called_so(refold: Refold) -> None:
    Path("projections").mkdir(exist_ok=True)
    done = refold("deploy", "--dry-run")
    assert (done.status, done.out) == (0, "Nothing to do: the live metrics match the files.\n")
    assert "the folder contains no projection" in done.err


def test_a_wrong_file_is_refused_with_its_place_and_a_remedy(refold: Refold, metric: Metric) -> None:
    metric("wrong", "SELECT action,\n       max(now()) AS late\nFROM events GROUP BY action")
    refused = refold("deploy")
    assert refused.status == 2
    assert "error: projections/wrong.sql:2: " in refused.err
    assert "try: " in refused.err
    assert "Traceback" not in refused.err


def test_a_file_whose_name_ends_otherwise_is_told(refold: Refold, metric: Metric) -> None:
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    Path("projections/daily.sql.txt").write_text("SELECT 1")
    Path("projections/counts.sql.txt").write_text("SELECT 1")
    Path("sql/views").mkdir(parents=True)
    Path("sql/views/top.sql.txt").write_text("SELECT 1")
    for options in (["--dry-run"], []):
        done = refold("deploy", *options)
        assert done.status == 0
        assert done.err.splitlines()[:3] == [
            "projections/counts.sql.txt is ignored, because its name does not end in .sql: counts.sql is used, so"
            " remove this one",
            "projections/daily.sql.txt is ignored, because its name does not end in .sql: rename it to daily.sql",
            "sql/views/top.sql.txt is ignored, because its name does not end in .sql: rename it to top.sql",
        ]
        assert len(refold("deploy", *options, "--json").json["left_out"]) == 3


def test_what_comes_with_refold_is_deployed_where_that_is_said(refold: Refold) -> None:
    assert refold("deploy", "--dry-run").status == 2
    planned = refold("deploy", "--starters", "--dry-run")
    assert planned.status == 0, planned.err
    assert "event_counts" in planned.out


def test_what_comes_with_refold_is_kept_up_beside_a_folder_of_ones_own(
    refold: Refold, metric: Metric, record: Record
) -> None:
    metric("counts", COUNTS)
    assert refold("deploy", "--starters").status == 0
    record("purchase=ann")
    drained = refold("worker", "--drain")
    assert drained.status == 0, drained.err
    assert csv(refold, "SELECT user_id, events FROM metrics.event_counts JOIN metrics.enriched_events USING (action)")
    # A file of that name in one's own folder is meant, and it is another one.
    Path("projections/enriched_events.py").write_text("def transform(event):\n    yield event\n")
    refused = refold("reconcile")
    assert refused.status == 2
    assert "enriched_events" in refused.err


def test_built_beside_and_promoted_later(refold: Refold, metric: Metric, record: Record) -> None:
    metric("counts", COUNTS)
    record("view=ann")
    refold("deploy")
    metric("counts", USERS)
    beside = refold("deploy", "--no-promote")
    assert beside.status == 0
    assert "`refold promote` switches" in beside.out
    assert csv(refold, "SELECT * FROM counts") == ["view,1"]
    assert [b["state"] for b in refold("status", "--json").json["builds"]] == ["live", "building"]
    assert "ready to promote" in refold("status").out
    unknown = refold("promote", "count")
    assert (unknown.status, "Did you mean counts?" in unknown.err) == (2, True)
    promoted = refold("promote", "counts")
    assert promoted.status == 0, promoted.err
    assert csv(refold, "SELECT * FROM counts") == ["view,1,1"]
    assert "No build is ready" in refold("promote").out


def test_a_change_that_is_taken_back_does_not_go_live_after_all(refold: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    refold("deploy")
    metric("counts", USERS)
    refold("deploy", "--no-promote")
    metric("counts", COUNTS)
    assert "Nothing to do: the live metrics match the files." in refold("deploy").out
    assert [build["state"] for build in refold("status", "--json").json["builds"]] == ["live"]
    assert "No build is ready" in refold("promote").out


def test_promoting_one_takes_along_what_it_reads_and_what_reads_that(refold: Refold, metric: Metric) -> None:
    metric("clicks", "SELECT user_id, action FROM events")
    metric("per_action", "SELECT action, count(*) AS clicks FROM clicks GROUP BY action")
    metric("per_user", "SELECT user_id, count(*) AS clicks FROM clicks GROUP BY user_id")
    metric("counts", COUNTS)
    assert refold("deploy", "--no-promote").status == 0
    promoted = refold("promote", "per_user", "--json")
    assert [build["projection"] for build in promoted.json["builds"]] == ["clicks", "per_action", "per_user"]
    assert [build["projection"] for build in refold("promote", "--json").json["builds"]] == ["counts"]


def test_of_two_rebuilds_the_newer_is_promoted_and_the_older_ends(refold: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    refold("deploy")
    for _ in range(2):
        assert refold("rebuild", "counts", "--no-promote").status == 0
    (promoted,) = refold("promote", "--json").json["builds"]
    assert promoted["table"].endswith("__3")
    assert [build["table"] for build in refold("status", "--json").json["builds"]] == [promoted["table"]]


def test_a_rebuild_that_was_interrupted_goes_on_when_it_is_run_again(
    refold: Refold, metric: Metric, record: Record, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the one that was begun would be loaded and switched to by a worker, a second time."""
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    record("view=ann")
    refold("deploy")
    with monkeypatch.context() as patched:
        patched.setattr("refold.engine.deployment.deploy.drive", interrupted)
        assert refold("rebuild", "counts").status == 130
    done = refold("rebuild", "counts", "--json")
    assert (done.status, [one["table"][-3:] for one in done.json["builds"]]) == (0, ["__2"])
    assert [one["state"] for one in refold("status", "--json").json["builds"]] == ["live"]
    assert refold("rebuild", "counts", "--json").json["builds"][0]["table"].endswith("__3")


def interrupted(*_: object, **__: object) -> None:
    """Ctrl-C at the first step."""
    raise KeyboardInterrupt


def test_rebuild_with_everything_below(refold: Refold, metric: Metric, record: Record) -> None:
    metric("clicks", "SELECT user_id, action FROM events")
    metric("per_user", "SELECT user_id, count(*) AS clicks FROM clicks GROUP BY user_id")
    record("view=ann")
    refold("deploy")
    alone = refold("rebuild", "clicks", "--json")
    assert [build["projection"] for build in alone.json["builds"]] == ["clicks"]
    both = refold("rebuild", "clicks", "--cascade", "--json")
    assert [build["projection"] for build in both.json["builds"]] == ["clicks", "per_user"]
    assert csv(refold, "SELECT * FROM per_user") == ["ann,1"]
    unknown = refold("rebuild", "clickz")
    assert (unknown.status, "Did you mean clicks?" in unknown.err) == (2, True)


def test_one_superseded_table_is_kept_to_go_back_to(
    refold: Refold, metric: Metric, conn: psycopg.Connection[tuple[Any, ...]]
) -> None:
    metric("counts", COUNTS)
    refold("deploy")
    for _ in range(3):
        refold("rebuild", "counts")
    found = conn.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'refold_builds'").fetchone()
    assert found == (2,)


def test_rollback_says_what_it_will_do_and_does_it(refold: Refold, metric: Metric, record: Record) -> None:
    metric("counts", COUNTS)
    record("view=ann")
    refold("deploy")
    metric("counts", USERS)
    refold("deploy")
    record("view=bob")
    planned = refold("rollback", "counts", "--dry-run")
    assert planned.status == 0
    assert "goes back" in planned.out
    assert csv(refold, "SELECT * FROM counts") == ["view,1,1"]
    done = refold("rollback", "counts", "--json")
    assert done.status == 0, done.err
    assert [(step["projection"], step["action"]) for step in done.json["plan"]] == [("counts", "goes back")]
    assert csv(refold, "SELECT * FROM counts") == ["view,2"]


def test_rollback_of_a_first_build_names_the_way_out(refold: Refold, metric: Metric) -> None:
    metric("counts", COUNTS)
    refold("deploy")
    refused = refold("rollback", "counts")
    assert refused.status == 2
    assert "the live build is its first" in refused.err
    assert "run `refold deploy`" in refused.err


@pytest.mark.parametrize("change", ["columns", "type"])
def test_views_follow_a_metric_whose_columns_change(
    refold: Refold, metric: Metric, record: Record, change: str
) -> None:
    metric("counts", COUNTS)
    Path("sql/views").mkdir(parents=True)
    view = Path("sql/views/top.sql")
    view.write_text("CREATE OR REPLACE VIEW metrics.top AS SELECT action, events FROM metrics.counts")
    record("view=ann")
    refold("deploy")
    if change == "columns":
        metric("counts", "SELECT action, min(ts) AS first, count(*) AS events FROM events GROUP BY action")
    else:
        metric("counts", "SELECT action, sum(1::numeric) AS events FROM events GROUP BY action")
    view.write_text("CREATE OR REPLACE VIEW metrics.top AS SELECT events, action FROM metrics.counts")
    deployed = refold("deploy")
    assert deployed.status == 0, deployed.err
    assert csv(refold, "SELECT * FROM top") == ["1,view"]
