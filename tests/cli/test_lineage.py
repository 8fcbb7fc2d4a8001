"""`refold lineage`: the path of events in four formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .conftest import Refold

Metric = Callable[[str, str], Path]


def test_formats(refold: Refold, metric: Metric) -> None:
    metric("buys", "-- Purchases.\nSELECT event_id, user_id, ts FROM events WHERE action = 'buy'")
    metric("by_user", "SELECT user_id, count(*) AS buys, max(ts) AS last FROM buys GROUP BY user_id")
    assert refold("deploy").status == 0
    text = refold("lineage").out.splitlines()
    assert [line.split(" (")[0] for line in text] == ["events", "  buys", "    by_user"]
    assert "(stream, facts)  Purchases." in text[1]
    columns = refold("lineage", "by_user", "--columns").out
    assert "buys.ts (aggregation)" in columns and "(which rows)" in columns and "no column" in columns
    graph = refold("lineage", "--format", "json").json
    assert [node["name"] for node in graph["nodes"]] == ["events", "buys", "by_user"]
    assert '"buys" -> "by_user";' in refold("lineage", "--format", "dot").out
    events = [json.loads(line) for line in refold("lineage", "--format", "openlineage").out.splitlines()]
    assert {event["job"]["name"].partition(".")[2] for event in events} == {"buys", "by_user"}
    unknown = refold("lineage", "by_usr")
    assert unknown.status == 2 and "Did you mean by_user?" in unknown.err
