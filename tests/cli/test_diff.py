"""`refold diff` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg

from refold.engine.apply.page import apply_next_page
from refold.postgres.connect import connect
from refold.store.builds.build import live_builds
from refold.store.builds.compiled import Compiler

from .conftest import Refold

Metric = Callable[[str, str], Path]
COUNTS = "SELECT action, count(*) AS events, sum((metadata->>'n')::numeric) AS total FROM events {} GROUP BY action"


def test_a_difference(refold: Refold, metric: Metric, record: Callable[..., None]) -> None:
    record("buy=a", "buy=b", "view=\x1b[31m", "leave=a", metadata={"n": 0.1})
    metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    nothing = refold("diff", "counts")
    assert nothing.status == 2 and "refold deploy --no-promote" in nothing.err
    assert refold("rebuild", "counts", "--no-promote").status == 0
    same = refold("diff", "counts")
    assert same.status == 0 and "The same." in same.out and "3 rows not read" in same.out
    metric("counts", COUNTS.format("WHERE event_id NOT IN ('2', '3')"))
    assert refold("deploy", "--no-promote").status == 0
    done = refold("diff", "counts", "--events")
    assert done.status == 1, done.err
    words = [line.split() for line in done.out.splitlines()]
    assert ["total", "1", "-0.1", "0.1"] in words and ["events", "1", "-1", "1"] in words
    assert "1 modified, 0 added, 1 removed, 0 in flight" in done.out
    assert "events 2 → 1  total 0.2 → 0.1" in done.out and "only the live build used 1 event: 2" in done.out
    answer = refold("diff", "counts", "--json", "--sample", "0").json
    assert answer["columns"] == [
        {"column": "events", "rows": 1, "sum": "-1", "most": "1"},
        {"column": "total", "rows": 1, "sum": "-0.1", "most": "0.1"},
    ]
    assert answer["rows"]["removed"] == 1 and not answer["same"] and not answer["samples"]
    assert refold("promote").status == 0
    assert refold("diff", "counts", "--build", "1").status == 1


def test_where_it_differs(refold: Refold, metric: Metric, record: Callable[..., None], database_url: str) -> None:
    record("buy=a", "buy=b")
    metric("facts", "SELECT event_id, action FROM events")
    assert refold("deploy").status == 0
    metric("facts", "SELECT event_id, upper(action) AS action FROM events")
    assert refold("deploy", "--no-promote").status == 0
    assert "\nslice that differs: positions 0 to 16,383\n" in refold("diff", "facts").out
    with psycopg.connect(database_url) as conn:
        conn.execute("SELECT setval('refold.events_position', 40000)")
    record("buy=c")
    assert refold("worker", "--drain").status == 0
    told = "slices that differ: the first is positions 0 to 16,383, the last positions 32,768 to 49,151"
    assert told in refold("diff", "facts").out


def test_in_flight_says_which_build_has_the_row(
    refold: Refold, metric: Metric, record: Callable[..., None], database_url: str
) -> None:
    record("buy=a")
    file = metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    metric("counts", COUNTS.format("WHERE event_id <> ''"))
    assert refold("deploy", "--no-promote").status == 0
    record("view=a")
    with connect(database_url) as worker:
        compiler = Compiler(file.parent)
        for build in live_builds(worker):
            apply_next_page(worker, compiler.of(worker, build), 100)
    done = refold("diff", "counts")
    assert done.status == 0 and "1 in flight" in done.out
    assert ["in", "flight", "action=view", "only", "live:", "events=1", "total=NULL"] in [
        line.split() for line in done.out.splitlines()
    ]


def test_what_events_say_has_no_effect_on_a_terminal(
    refold: Refold, metric: Metric, record: Callable[..., None]
) -> None:
    record("\x1b[2J[red]x=a", "b=a")
    metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    metric("counts", COUNTS.format("WHERE action = 'b'"))
    assert refold("deploy", "--no-promote").status == 0
    done = refold("diff", "counts")
    assert "\x1b" not in done.out and "\\x1b[2J[red]x" in done.out
