"""The graph of what is live, with the columns behind columns; transforms are observed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.engine.lineage.graph import Graph, Node, as_dot, lineage_graph
from refold.engine.lineage.observed import observe
from refold.errors import InputError
from refold.model.projection.definition import load_directory
from refold.postgres.connect import connect
from refold.store.builds.compiled import Compiler
from tests.inspect.lineage.test_why import BUYS, BY_USER, DAILY, fill
from tests.support.law import PROJECT
from tests.support.scratch import Scratch

GRADED = '''
from datetime import datetime
from pydantic import BaseModel
from refold import Event, transform

class Graded(BaseModel):
    event_id: str
    who: str | None
    cohort: str
    big: bool
    fixed: int

@transform()
def graded(event: Event) -> Graded | None:
    """Grades of purchases."""
    if event.action == "noise":
        return None
    return Graded(event_id=event.event_id, who=event.user_id, cohort=event.ts.strftime("%Y-%m"),
                  big=event.metadata.get("n", 0) > 5, fixed=1)
'''


@pytest.fixture
def inspector(scratch: Scratch) -> Iterator[psycopg.Connection[Any]]:
    with connect(scratch.url, "refold_inspector", autocommit=True) as conn:
        yield conn


def by_name(graph: Graph) -> dict[str, Node]:
    return {node.name: node for node in graph.nodes}


def sources(node: Node) -> dict[str, list[str] | None]:
    assert node.lineage is not None
    return {
        name: None if one is None else [f"{s.relation}.{s.column} {s.subtype}" for s in one]
        for name, one in node.lineage.columns.items()
    }


def test_from_the_log_to_views(scratch: Scratch, inspector: psycopg.Connection[Any]) -> None:
    scratch.deploy(daily=DAILY, buys=BUYS, by_user=BY_USER)
    with psycopg.connect(scratch.url) as conn:
        conn.execute(
            "CREATE VIEW metrics.best AS SELECT user_id, total * 2 AS twice FROM metrics.by_user WHERE buys > 1"
        )
        conn.execute(
            'CREATE SCHEMA reports; CREATE VIEW reports."Top one" AS SELECT max(twice) AS top FROM metrics.best'
        )
        conn.execute("CREATE VIEW reports.odd AS SELECT d.users, p.usename FROM metrics.daily AS d, pg_user AS p")
    graph = lineage_graph(inspector, Compiler(scratch.folder), columns=True)
    nodes = by_name(graph)
    assert {name: node.kind for name, node in nodes.items()} == {
        "events": "log", "daily": "metric", "buys": "stream", "by_user": "metric",
        "best": "view", "reports.Top one": "view", "reports.odd": "view",
    }  # fmt: skip
    assert {(edge.above, edge.below) for edge in graph.edges} == {
        ("events", "daily"), ("events", "buys"), ("buys", "by_user"), ("by_user", "best"),
        ("best", "reports.Top one"), ("daily", "reports.odd"),
    }  # fmt: skip
    assert sources(nodes["by_user"])["total"] == ["buys.n AGGREGATION"]
    assert sources(nodes["best"]) == {
        "user_id": ["by_user.user_id IDENTITY"],
        "twice": ["by_user.total TRANSFORMATION"],
    }
    assert sources(nodes["reports.Top one"]) == {"top": ["best.twice AGGREGATION"]}
    odd = nodes["reports.odd"].lineage
    assert odd is not None and odd.unknown is not None and "pg_user" in odd.unknown
    around = by_name(graph.around("by_user"))
    assert set(around) == {"events", "buys", "by_user", "best", "reports.Top one"}
    with pytest.raises(InputError, match="Did you mean by_user"):
        graph.around("by_usr")
    assert '"best" -> "reports.Top one";' in as_dot(graph)


def test_a_transform_is_observed(scratch: Scratch, inspector: psycopg.Connection[Any]) -> None:
    scratch.deploy(graded=GRADED)
    compiler = Compiler(scratch.folder)
    before = by_name(lineage_graph(inspector, compiler, columns=True))["graded"].lineage
    assert before is not None and before.unknown == "it has processed no event yet"
    fill(scratch, *({"action": "buy", "user_id": f"u{n}", "metadata": {"n": n}} for n in range(25)))
    node = by_name(lineage_graph(inspector, compiler, columns=True))["graded"]
    assert node.lineage is not None and 0 < (node.lineage.observed or 0) <= 20
    assert sources(node) == {
        "event_id": ["events.event_id IDENTITY"],
        "who": ["events.user_id IDENTITY"],
        "cohort": ["events.ts TRANSFORMATION"],
        "big": ["events.metadata TRANSFORMATION"],
        "fixed": [],
    }
    scratch.write(graded="import nothing_of_that_name")
    assert by_name(lineage_graph(inspector, compiler, columns=True))["graded"].lineage == node.lineage
    unknown = by_name(lineage_graph(inspector, Compiler(scratch.folder), columns=True))["graded"].lineage
    assert unknown is not None and unknown.unknown is not None


def test_a_field_that_decides_whether_there_are_rows() -> None:
    """Of the law's own transforms: `tagged` leaves out noise, `items` makes as many rows as there are items."""
    definitions = load_directory(PROJECT)
    row: dict[str, Any] = {
        "txid": 1, "position": 1, "ordinal": 0, "event_id": "e", "user_id": "u", "action": "view", "version": 1,
        "ts": datetime(2026, 3, 2, tzinfo=UTC), "metadata": {"items": ["a", "b"], "n": 3},
    }  # fmt: skip
    tagged = definitions["tagged"].transform
    items = definitions["items"].transform
    assert tagged is not None and items is not None
    noise = {**row, "event_id": "f", "action": "noise"}
    found = observe(tagged, [row, noise], "events")
    assert [one.column for one in found.rows] == ["action"]
    assert {one.column for one in found.columns["tag"] or ()} == {"action", "user_id"}
    assert [one.column for one in found.columns["weight"] or ()] == ["metadata"]
    of_items = observe(items, [row], "events")
    assert [one.column for one in of_items.rows] == ["metadata"]
    assert [(one.column, one.subtype) for one in of_items.columns["user_id"] or ()] == [("user_id", "IDENTITY")]


def test_a_slow_function_is_observed_on_one_event(tmp_path: Path) -> None:
    (tmp_path / "graded.py").write_text(GRADED)
    graded = load_directory(tmp_path)["graded"].transform
    assert graded is not None
    row = {
        "txid": 1, "position": 1, "ordinal": 0, "event_id": "e", "user_id": "u", "action": "view", "version": 1,
        "ts": datetime(2026, 3, 2, tzinfo=UTC), "metadata": {},
    }  # fmt: skip
    assert observe(graded, [row] * 5, "events", seconds=0).observed == 1
