"""No text that a projection may hold is taken for a place in the SQL that refold generates."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from refold import append
from refold.engine.reconcile.reconcile import reconcile
from refold.service.duties import hot_keys
from refold.store.builds.build import live
from refold.store.builds.compiled import Compiler
from tests.support.law import worker_connection
from tests.support.live import drain, make_live, wrong
from tests.support.making import events

TEXTS = ("{stream}", "{}", "%s", "%(done)s", "%%", "stream__here", "$1", "upto__")
SAID = ", ".join(f"'{text}'" for text in TEXTS)
COLUMN = '"{stream} a{b} {}"'
PROJECTIONS = {
    "fact": f"SELECT user_id, ts, action IN ({SAID}) AS {COLUMN} FROM events WHERE action <> '%%s'",
    "merged": f"SELECT action IN ({SAID}) AS {COLUMN}, count(*) AS n FROM events GROUP BY 1",
    "members": f"SELECT action || '{{x}} %s' AS {COLUMN}, count(DISTINCT user_id) AS n FROM events GROUP BY 1",
    "again": f"SELECT action || '{{x}} %s' AS {COLUMN}, mode() WITHIN GROUP (ORDER BY user_id) AS n"
    f" FROM events WHERE action <> '%%s' GROUP BY {COLUMN}",
    "ranked": f"-- key: user_id\nSELECT user_id, count(*) FILTER (WHERE action IN ({SAID})) AS {COLUMN},"
    " rank() OVER (PARTITION BY user_id ORDER BY count(*)) AS r FROM events AS STREAM__HERE GROUP BY user_id",
    "funnel": "SELECT user_id, window_funnel(interval '1 day', ts, action = '{stream}', action = '%s') AS"
    f" {COLUMN} FROM events GROUP BY user_id",
}


def test_braces_and_percent_signs_are_text(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, query in PROJECTIONS.items():
        (tmp_path / f"{name}.sql").write_text(query)
    with psycopg.connect(database_url) as conn:
        append(conn, events(12, "a"))
    make_live(database_url, tmp_path)
    with psycopg.connect(database_url) as conn:
        append(conn, [event | {"action": text} for at, text in enumerate(TEXTS) for event in events(3, f"b{at}_")])
    drain(database_url, tmp_path)
    assert wrong(database_url, tmp_path) == {}
    monkeypatch.setattr(hot_keys, "HOT", 3)
    with worker_connection(database_url) as conn:
        proved = reconcile(conn, Compiler(tmp_path), [], depth="deep", by="a test")
        assert (proved.drift, proved.failed, proved.skipped) == (0, [], [])
        for name in ("again", "ranked", "funnel"):
            build = live(conn, name)
            assert build is not None
            assert hot_keys.hottest(conn, Compiler(tmp_path).of(conn, build)) is not None
