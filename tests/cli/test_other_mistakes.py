"""A command that names one metric does its work, whatever is wrong with files that the metric does not read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Refold

Metric = Callable[[str, str], Path]

COUNTS = "SELECT action, count(*) AS n FROM events GROUP BY action"
TRANSFORM = """
from pydantic import BaseModel

from refold import Event, transform


class Scored(BaseModel):
    action: str


@transform(reads="events")
def scored(event: Event) -> Scored:
    return Scored(action=event.action)
"""


@pytest.fixture
def project(refold: Refold, metric: Metric) -> Refold:
    """Two live metrics on a transform, then two wrong files beside them."""
    metric("counts", COUNTS)
    metric("scores", "SELECT action, count(*) AS n FROM scored GROUP BY action")
    Path("projections/scored.py").write_text(TRANSFORM)
    Path("sql/views").mkdir(parents=True)
    Path("sql/views/top.sql").write_text("CREATE OR REPLACE VIEW metrics.top AS SELECT action, n FROM metrics.counts")
    assert refold("deploy").status == 0
    metric("bad", "SELECT acton, count(*) AS n FROM events GROUP BY acton")
    metric("below", "SELECT action, count(*) AS n FROM worse GROUP BY action")
    metric("worse", "SELECT action, rank() OVER () AS n FROM events")
    return refold


@pytest.mark.parametrize("name", ["counts", "scores", "top"])
def test_explain_shows_what_was_asked_for(project: Refold, name: str) -> None:
    done = project("explain", name, "--json")
    assert done.status == 0, done.err
    assert name in (done.json.get("projection"), done.json.get("view"))
    assert done.err == "2 other files have mistakes; `refold deploy --dry-run` shows them\n"


def test_explain_shows_the_mistakes_of_the_file_and_of_what_it_reads(project: Refold) -> None:
    for name, file in (("bad", "bad.sql"), ("worse", "worse.sql"), ("below", "worse.sql")):
        done = project("explain", name)
        assert done.status == 2
        assert [line for line in done.err.splitlines() if "error: " in line] == [
            line for line in done.err.splitlines() if f"projections/{file}" in line
        ]
        assert file in done.err


@pytest.mark.parametrize(
    "command",
    [
        ["rebuild", "counts"],
        ["rebuild", "scored", "--cascade"],
        ["explain", "scored", "--deployed"],
        ["reconcile", "scored"],
        ["rename", "counts", "actions", "--dry-run"],
        ["drop", "scored", "scores"],
        ["worker", "--drain"],
        ["promote", "counts"],
        ["deadletters", "list", "counts"],
    ],
    ids=" ".join,
)
def test_other_commands_do_their_work(project: Refold, command: list[str]) -> None:
    done = project(*command)
    assert "bad.sql" not in done.err
    assert "worse.sql" not in done.err
    if command[0] == "promote":
        assert "no build" in done.err.lower() + done.out.lower() or done.status == 0
    else:
        assert done.status == 0, done.err


def test_a_transform_whose_own_file_is_wrong(project: Refold) -> None:
    Path("projections/scored.py").write_text("def scored(:\n")
    done = project("rebuild", "scored", "--cascade")
    assert done.status == 2
    assert "projections/scored.py:1: not valid Python" in done.err
    assert "bad.sql" not in done.err
