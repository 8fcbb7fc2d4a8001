"""The text of a build without its upcasters is what its author wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.model.projection.upcast import Upcasts, upcast_file
from refold.model.projection.without_upcasters import without_upcasters

STEPS = {
    "buy": ("metadata || jsonb_build_object('a', metadata -> 'b')", "metadata || jsonb_build_object('c', (1 + 2))"),
    "it's": ("CASE WHEN metadata ? 'x' THEN metadata ELSE metadata || '{\"x\": 1}' END",),
}
UPCASTS = Upcasts(
    {
        action: tuple(
            upcast_file(f"{action}.v{at}_to_v{at + 1}", sql, Path("step.sql")) for at, sql in enumerate(sqls, 1)
        )
        for action, sqls in STEPS.items()
    }
)
QUERIES = [
    "-- What they spend.\nSELECT user_id, sum((metadata ->> 'a')::numeric) AS spent -- EUR\n"
    "FROM events GROUP BY user_id",
    "SELECT event_id, metadata FROM events",
    "SELECT e.event_id, e.metadata, E.metadata -> 'a' AS a FROM events AS e WHERE e.action IN ('buy', 'sell')",
    "SELECT event_id, ts + interval '1 day 12:00:00' AS due, metadata ->> 'a' AS a,\n"
    "       ts - interval '2 days 1:00' AS was FROM events WHERE metadata ? 'a'",
    "SELECT action, sum((CASE WHEN action = 'other' THEN 1 ELSE (metadata ->> 'a')::int END)) AS n\n"
    "FROM events GROUP BY action",
]


@pytest.mark.parametrize("query", QUERIES)
def test_there_and_back(query: str) -> None:
    made = UPCASTS.rewritten(query)
    assert "no_upcast(" in made
    found = without_upcasters(made)
    assert found.text == query
    assert found.actions == (("buy",) if "IN ('buy'" in query else ("buy", "it's"))


@pytest.mark.parametrize(
    "query", [*QUERIES, "def transform(event):\n    return 'no_upcast('", "SELECT 'open no_upcast("]
)
def test_a_text_without_them_stays(query: str) -> None:
    assert without_upcasters(query).text == query
    assert without_upcasters(query).actions == ()
