"""All that is wrong with the files of a project is said at once, before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from .conftest import Refold

Metric = Callable[[str, str], Path]
Record = Callable[..., None]

COUNTS = "SELECT action, count(*) AS n FROM events GROUP BY action"

WRONG = {
    # file: its text, and what is said of it: line, words of the message, words of the remedy
    "cohort": (
        "-- key: user_id\nSELECT cohort, count(*) AS users\n"
        "FROM (SELECT user_id, min(version) AS cohort FROM events GROUP BY user_id) AS f GROUP BY cohort",
        [(2, "declared key user_id", "Keep one row per user_id here")],
    ),
    "double": (
        'SELECT action, count(*) AS n\nFROM events WHERE action = "buy" GROUP BY action',
        [(2, "events has no column buy", "single quotes: 'buy'")],
    ),
    "empty": ("", [(1, "the file is empty", "Write one SELECT")]),
    "known": (
        "SELECT user_id,\n  max(version > 1) AS late FROM events GROUP BY user_id",
        [(2, "function max(boolean) does not exist", "bool_or(…)")],
    ),
    "misspelt": (
        "SELECT action, count(*) AS n\nFORM events GROUP BY action",
        [(2, "cannot read this SQL", "Write FROM")],
    ),
    "on_metric": (
        "SELECT c.action, sum(n) AS n\nFROM counts AS c GROUP BY c.action",
        [(2, "counts is a metric", "join it in a view: sql/views/on_metric.sql")],
    ),
    "summed": (
        "SELECT action,\n  sum(metadata ->> 'amount') AS total FROM events GROUP BY action",
        [(2, "function sum(text) does not exist", "(metadata ->> 'amount')::numeric")],
    ),
    "two": (
        "SELECT action, max(now()) AS late,\n  max(random()) AS chance FROM events GROUP BY action",
        [(1, "time of evaluation", "event's own ts"), (2, "depends on chance", "its events alone")],
    ),
    "ungrouped": (
        "SELECT action,\n  user_id, stddev(version) AS s FROM events GROUP BY action",
        [(2, "must appear in the GROUP BY clause", "Add it to GROUP BY")],
    ),
    "unknown": (
        "SELECT action, max(lowr(user_id)) AS x FROM events GROUP BY action",
        [(1, "function lowr(text) does not exist", "Did you mean lower?")],
    ),
}  # fmt: skip


def test_all_mistakes_are_said_at_once_by_a_dry_run_too(
    refold: Refold, metric: Metric, conn: psycopg.Connection[Any]
) -> None:
    metric("counts", COUNTS)
    for name, (text, _) in WRONG.items():
        metric(name, text)
    Path("sql/views").mkdir(parents=True)
    Path("sql/views/counts.sql").write_text("CREATE VIEW metrics.counts AS SELECT 1 AS n")
    Path("sql/views/lost.sql").write_text("CREATE VIEW metrics.lost AS\nSELECT * FROM metrics.count")
    Path("sql/views/of_wrong.sql").write_text("CREATE VIEW metrics.of_wrong AS SELECT * FROM metrics.summed")
    Path("sql/views/on_that.sql").write_text("CREATE VIEW metrics.on_that AS SELECT * FROM metrics.of_wrong")
    dry, done = refold("deploy", "--dry-run"), refold("deploy")
    assert (dry.status, dry.err) == (2, done.err)
    assert done.status == 2
    said = iter(done.err.splitlines())
    for name, (_, expected) in WRONG.items():
        for line, message, remedy in expected:
            error, advice = next(said), next(said)
            assert error.startswith(f"error: projections/{name}.sql:{line}: "), error
            assert message in error
            assert remedy in advice
    assert "sql/views/counts.sql: the name counts is taken by a metric" in next(said)
    next(said)
    assert 'sql/views/lost.sql:2: relation "metrics.count" does not exist' in next(said)
    assert "Write metrics.counts." in next(said)
    # Nothing is said of views on what is wrong itself.
    assert list(said) == []
    assert conn.execute("SELECT count(*) FROM refold.builds").fetchone() == (0,)


def test_what_no_event_has_is_said_at_deploy(refold: Refold, metric: Metric, record: Record) -> None:
    metric("a", "SELECT action, count(*) AS n FROM events WHERE action = 'purchaes' GROUP BY action")
    metric(
        "b",
        "SELECT user_id, count(*) FILTER (WHERE action IN ('view', 'cart')) AS n FROM events GROUP BY user_id",
    )
    metric("c", "SELECT user_id, action FROM events WHERE user_id = 'nobody'")
    metric("d", COUNTS)
    record("purchase=ann", "view=bob")
    planned = refold("deploy", "--dry-run")
    assert "a: no event has the action 'purchaes'. Did you mean 'purchase'?" in planned.err
    deployed = refold("deploy")
    assert (deployed.status, planned.status) == (0, 0)
    live = deployed.out.splitlines()[-4:]
    assert live[0] == "live: a, 0 rows: no event has the action 'purchaes'. Did you mean 'purchase'?"
    assert live[1].startswith("live: b  (b__")
    assert live[2] == "live: c, 0 rows: the query makes no row of events yet"
    assert "b: no event has the action 'cart'" in deployed.err
    assert "d: " not in deployed.err
