"""Views of analysts: deployed with what they stand on, or not at all; and no metric loses its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.engine.publish.shown import is_hidden, is_shown, shown_again
from refold.service.duties.audits import QUICK, quick_audit
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from refold.store.incidents import find as incidents
from tests.support.law import worker_connection

from .conftest import Refold

Metric = Callable[[str, str], Path]
Record = Callable[..., None]

WIDE = "SELECT action, count(*) AS n, count(user_id) AS u FROM events GROUP BY action"
NARROW = "SELECT action, count(user_id) AS u FROM events GROUP BY action"


@pytest.fixture
def view() -> Callable[[str, str], None]:
    """Writes the file of a view."""

    def write(name: str, query: str) -> None:
        folder = Path("sql/views")
        folder.mkdir(parents=True, exist_ok=True)
        # Without OR REPLACE: what has to be dropped for it is.
        (folder / f"{name}.sql").write_text(
            f"CREATE VIEW metrics.{name} AS\n{query};\nCOMMENT ON VIEW metrics.{name} IS 'x'"
        )

    return write


@pytest.fixture
def deployed(refold: Refold, metric: Metric, record: Record, view: Callable[[str, str], None]) -> Refold:
    """A metric with a view on it, a view on that one, and one that somebody has made by hand."""
    metric("counts", WIDE)
    view("a_last", "SELECT action, m + 1 AS more FROM metrics.top")
    view("top", "SELECT action, n AS m FROM metrics.counts")
    record("view=ann", "view")
    done = refold("deploy")
    assert (done.status, done.out.splitlines()[-1]) == (0, "views: a_last, top"), done.err
    return refold


def csv(refold: Refold, name: str) -> list[str]:
    done = refold("query", f"SELECT * FROM {name}", "--csv")
    assert done.status == 0, done.err
    return done.out.splitlines()


def test_a_metric_and_its_view_evolve_in_one_deploy(
    deployed: Refold, metric: Metric, view: Callable[[str, str], None], admin: psycopg.Connection[Any]
) -> None:
    admin.execute("CREATE VIEW metrics.by_hand AS SELECT sum(u) AS users FROM metrics.counts")
    admin.execute("GRANT SELECT ON metrics.by_hand, metrics.top TO refold_producer")
    metric("counts", NARROW)
    for options in (("--dry-run",), ()):
        refused = deployed("deploy", *options)
        # The metric does not go live without its view.
        assert (refused.status, 'sql/views/top.sql:2: column "n" does not exist' in refused.err) == (1, True)
    assert csv(deployed, "counts") == ["action,n,u", "view,2,1"]
    view("top", "SELECT u AS m, action FROM metrics.counts")
    assert deployed("deploy", "--dry-run").status == 0
    done = deployed("deploy")
    assert done.status == 0, done.err
    assert csv(deployed, "counts") == ["action,u", "view,1"]
    assert csv(deployed, "top") == ["m,action", "1,view"]
    assert csv(deployed, "a_last") == ["action,more", "view,2"]
    assert admin.execute(
        "SELECT has_table_privilege('refold_producer', name, 'SELECT'), has_table_privilege('refold_analyst', name,"
        " 'SELECT') FROM unnest(ARRAY['metrics.by_hand', 'metrics.top']) AS name"
    ).fetchall() == [(True, False), (True, True)]


def test_a_view_made_by_hand_that_uses_a_column_that_goes_is_named_before_anything_is_built(
    deployed: Refold, metric: Metric, view: Callable[[str, str], None], admin: psycopg.Connection[Any]
) -> None:
    admin.execute("CREATE VIEW metrics.by_hand AS SELECT sum(n) AS n FROM metrics.counts")
    admin.execute("CREATE SCHEMA reports")
    admin.execute("CREATE VIEW reports.foreign_one AS SELECT m FROM metrics.top")
    metric("counts", NARROW)
    view("top", "SELECT u AS other FROM metrics.counts")
    Path("sql/views/a_last.sql").unlink()
    for options in (("--dry-run",), ()):
        refused = deployed("deploy", *options)
        assert refused.status == 2
        assert "reports.foreign_one depends on it" in refused.err
    admin.execute("DROP VIEW reports.foreign_one")
    refused = deployed("deploy", "--dry-run")
    assert "metrics.by_hand uses a removed column" in refused.err
    assert "sql/views/by_hand.sql" in refused.err
    assert admin.execute("SELECT count(*) FROM refold.builds").fetchone() == (1,)


def test_views_wait_for_promote_with_their_metric(
    deployed: Refold, metric: Metric, view: Callable[[str, str], None]
) -> None:
    metric("counts", NARROW)
    view("top", "SELECT action, u AS m FROM metrics.counts")
    beside = deployed("deploy", "--no-promote")
    assert (beside.status, "views:" in beside.out) == (0, False)
    assert csv(deployed, "top") == ["action,m", "view,2"]
    # As they were when they were deployed.
    view("top", "SELECT 'later' AS action")
    promoted = deployed("promote", "--json")
    assert (promoted.status, promoted.json["views"]) == (0, ["a_last", "top"])
    assert csv(deployed, "top") == ["action,m", "view,1"]


def test_a_rollback_takes_a_view_back_that_uses_what_its_metric_has_got_since(
    deployed: Refold, metric: Metric, view: Callable[[str, str], None]
) -> None:
    metric("counts", "SELECT action, count(*) AS n, max(version) AS v FROM events GROUP BY action")
    view("top", "SELECT action, v AS m FROM metrics.counts")
    assert deployed("deploy").status == 0
    assert csv(deployed, "a_last") == ["action,more", "view,2"]
    done = deployed("rollback", "counts")
    assert done.status == 0, done.err
    assert csv(deployed, "a_last") == ["action,more", "view,3"]


def test_a_view_alone_is_changed_and_what_stands_is_left_alone(
    deployed: Refold, view: Callable[[str, str], None], admin: psycopg.Connection[Any]
) -> None:
    written = "SELECT xmin::text FROM pg_class WHERE oid = 'metrics.a_last'::regclass"
    before = admin.execute(written).fetchone()
    assert deployed("deploy").status == 0
    assert admin.execute(written).fetchone() == before
    view("top", "SELECT action, n + 1 AS m FROM metrics.counts")
    done = deployed("deploy", "--json")
    assert (done.status, done.json["views"]) == (0, ["a_last", "top"])
    assert csv(deployed, "a_last") == ["action,more", "view,4"]


@pytest.mark.parametrize(
    "damage",
    [
        "DROP VIEW metrics.counts CASCADE",
        "CREATE OR REPLACE VIEW metrics.counts AS SELECT 'x' COLLATE \"C\" AS action, 1::bigint AS n, 1::bigint AS u",
        "CREATE OR REPLACE VIEW metrics.counts AS SELECT action, u AS n, n AS u FROM {table}",
    ],
)
def test_a_metric_whose_view_somebody_has_taken_is_seen_and_gets_it_back(
    deployed: Refold, admin: psycopg.Connection[Any], damage: str
) -> None:
    [(table,)] = admin.execute("SELECT 'refold_builds.' || quote_ident(table_name) FROM refold.builds").fetchall()
    admin.execute(damage.format(table=table))
    found = [check for check in deployed("doctor", "--json").json if check["name"] == "views"]
    assert found[0]["verdict"] == "fail"
    assert "metrics.counts is not the view of its metric" in found[0]["found"]
    if "{table}" not in damage:
        # It looks at what the view reads; the doctor at its text.
        assert "hidden    metrics.counts" in deployed("status").out
    planned = deployed("deploy", "--dry-run")
    assert (planned.status, "dropped or replaced its view, and the deploy recreates it" in planned.out) == (0, True)
    assert deployed("deploy").status == 0
    assert csv(deployed, "counts") == ["action,n,u", "view,2,1"]
    assert csv(deployed, "a_last") == ["action,more", "view,3"]
    assert "hidden" not in deployed("status").out
    after = [check for check in deployed("doctor", "--json").json if check["name"] == "views"]
    assert [check["verdict"] for check in after] == ["ok"]


def test_a_view_that_is_not_as_its_file_says_is_told_by_the_doctor(
    deployed: Refold, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("CREATE OR REPLACE VIEW metrics.a_last AS SELECT action, m AS more FROM metrics.top")
    [found] = [check for check in deployed("doctor", "--json").json if check["name"] == "views"]
    assert (found["verdict"], found["found"]) == ("warn", "different from sql/views: metrics.a_last")
    assert deployed("deploy").status == 0
    assert csv(deployed, "a_last") == ["action,more", "view,3"]


DROPPED = "DROP VIEW metrics.counts CASCADE"
REPLACED = "CREATE OR REPLACE VIEW metrics.counts AS SELECT action, u AS n, n AS u FROM {table}"
FOREIGN = f"{DROPPED}; CREATE VIEW metrics.counts AS SELECT 'mine' AS action"


@pytest.mark.slow
def test_reconcile_tells_of_a_metric_whose_view_somebody_has_taken_and_makes_it_again(
    deployed: Refold, admin: psycopg.Connection[Any]
) -> None:
    [(table,)] = admin.execute("SELECT 'refold_builds.' || quote_ident(table_name) FROM refold.builds").fetchall()
    for damage in (REPLACED, DROPPED):
        admin.execute(damage.format(table=table))
        for only_looks in ("--dry-run", "--depth=quick"):
            told = deployed("reconcile", only_looks)
            assert (told.status, told.out.startswith("drift: metrics.counts was dropped or replaced;")) == (
                1,
                True,
            )
            assert "no drift" not in told.out
        assert incidents(admin, "i.kind = 'hidden' AND i.resolved_at IS NULL") == []
        done = deployed("reconcile")
        assert (done.status, done.out.splitlines()) == (
            1,
            ["drift: metrics.counts had been dropped or replaced; recreated", "no row differed: counts"],
        )
        assert csv(deployed, "counts") == ["action,n,u", "view,2,1"]
        # What went with it has a file, and that is for a deploy.
        gone = [one for one in ("a_last", "top") if damage is DROPPED]
        assert [f"metrics.{one} differs from" in done.err for one in ("a_last", "top")] == [bool(gone)] * 2
        again = deployed("reconcile", "--json")
        assert (again.status, again.json["hidden"], again.json["unlike_files"]) == (0, [], gone)
        assert deployed("deploy").status == 0
    replaced, dropped = incidents(admin, "i.kind = 'hidden'")
    assert "u AS n" in replaced.evidence["stood"] and dropped.evidence["stood"] is None
    assert replaced.resolved_by == dropped.resolved_by == "refold reconcile"


def test_what_stands_in_place_of_a_view_and_is_not_refolds_is_told_with_what_to_do(
    deployed: Refold, admin: psycopg.Connection[Any]
) -> None:
    admin.execute(FOREIGN)
    done = deployed("reconcile", "--json")
    assert (done.status, done.json["clean"]) == (1, False)
    [hidden] = done.json["hidden"]
    assert (hidden["healed"], "must be owner" in hidden["because"]) == (False, True)
    assert "Drop it as its owner" in hidden["remedy"]
    for command in (["deploy", "--dry-run"], ["deploy"]):
        refused = deployed(*command)
        assert (refused.status, "Drop it as its owner" in refused.err) == (2, True), refused.err
    assert "1 hidden open" in deployed("status").out
    admin.execute("DROP VIEW metrics.counts")
    assert "metrics.counts had been dropped or replaced; recreated" in deployed("reconcile").out
    [one] = incidents(admin, "i.kind = 'hidden'")
    assert (one.resolved_at is not None, "mine" in one.evidence["stood"]) == (True, True)
    assert deployed("status", "--exit-code").status == 0
    # Where nobody may make a temporary view to compare with, the rows are looked at all the same.
    admin.execute(f"REVOKE TEMPORARY ON DATABASE {admin.info.dbname} FROM PUBLIC".encode())
    Path("sql/views/top.sql").unlink()
    Path("sql/views/a_last.sql").unlink()
    unseen = deployed("reconcile", "--depth=slice")
    assert (unseen.status, unseen.out.startswith("no drift: counts (by their checksums")) == (0, True), unseen.err
    assert "the view of counts was not audited: permission denied" in unseen.err
    admin.execute("DROP VIEW metrics.counts")
    assert deployed("status", "--exit-code").status == 1


def test_a_workers_audit_makes_a_view_again(
    deployed: Refold, admin: psycopg.Connection[Any], database_url: str
) -> None:
    compiler = Compiler(None)
    with worker_connection(database_url) as worker:
        quick_audit(worker, compiler)
        admin.execute(DROPPED)
        quick_audit(worker, compiler)
        assert [one.resolved_by for one in incidents(worker, "i.kind = 'hidden'")] == [QUICK]
        assert csv(deployed, "counts") == ["action,n,u", "view,2,1"]
        [build] = find(worker, "b.state = 'live'")
        # What was right is looked at without a write.
        with worker.transaction():
            worker.execute("SET TRANSACTION READ ONLY")
            assert is_shown(worker, build, compiler)
        # Renamed while somebody looked.
        assert deployed("rename", "counts", "sums").status == 0
        assert not is_hidden(worker, build, compiler)
        assert not shown_again(worker, build, compiler, by=QUICK)
        assert worker.execute("SELECT to_regclass('metrics.counts')").fetchone() == (None,)
