"""A literal means the same in every statement of a build, whatever lines and spaces it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from tests.support.live import drain, make_live

Connection = psycopg.Connection[Any]

# A carriage return in a file is a line end, whatever wrote the file.
TEXTS = [
    "a\nb",
    "a\n    b",
    "a\u2028b",
    "a\x0cb",
    "a\x85b",
    "a\n\nb",
    "it's\n-- no comment",
    "/* a\nb",
    "a'\nb",
]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: "'" + text.replace("'", "''") + "'",
    "dollars": lambda text: f"$x${text}$x$",
    "escapes": lambda text: "E'" + text.replace("'", "\\'") + "'",
}
METRICS = {
    # Of each kind of upkeep, one that shows whether an event met its condition.
    "merge": "SELECT action, count(*) FILTER (WHERE metadata->>'t' = {0}) AS n FROM events GROUP BY action",
    "members": "SELECT action, count(DISTINCT user_id) FILTER (WHERE metadata->>'t' = {0}) AS n"
    " FROM events GROUP BY action",
    "recompute": "SELECT user_id, string_agg(event_id, {0} ORDER BY event_id) AS n FROM events"
    " WHERE metadata->>'t' = {0} GROUP BY user_id",
    "facts": "SELECT event_id, metadata->>'t' = {0} AS n FROM events",
}


def event(event_id: str, user: str, text: str) -> dict[str, Any]:
    return {"id": event_id, "user_id": user, "action": "view", "ts": 0, "metadata": {"t": text}}


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_over_several_lines(spelling: str, database_url: str, admin: Connection, tmp_path: Path) -> None:
    folder = tmp_path / "projections"
    folder.mkdir()
    queries = {}
    for at, text in enumerate(TEXTS):
        for name, form in METRICS.items():
            queries[f"{name}_{at}"] = form.format(SPELLINGS[spelling](text))
    for name, query in queries.items():
        (folder / f"{name}.sql").write_bytes(query.encode())
    texts = [*TEXTS, *(text.replace("\n", "\n    ") for text in TEXTS)]

    def bring(first: str) -> None:
        ids = enumerate(texts)
        append(admin, [event(f"{first}{at}", first, text) for at, text in ids])

    bring("loaded")
    make_live(database_url, folder)
    bring("paged")
    drain(database_url, folder)
    assert admin.execute("SELECT count(*) FROM refold.dead_letters").fetchone() == (0,)
    for name, query in queries.items():
        kept = admin.execute(f"SELECT * FROM metrics.{name} ORDER BY 1, 2".encode()).fetchall()
        asked = query.replace("FROM events", "FROM refold.events")
        assert kept == admin.execute(f"SELECT * FROM ({asked}\n) AS x ORDER BY 1, 2".encode()).fetchall(), name
        assert len(kept) > 0
