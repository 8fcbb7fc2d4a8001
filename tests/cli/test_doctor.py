"""`refold doctor`: exit status and output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from refold.inspect.doctor.check import Check

from .conftest import Refold


def test_a_database_with_something_to_do(refold: Refold, metric: Callable[[str, str], Path]) -> None:
    metric("counts", "SELECT action, count(*) AS n FROM events GROUP BY action")
    done = refold("doctor")
    assert done.status == 1
    assert "counts (new)" in done.out
    assert "projections: `refold deploy --dry-run` shows the plan." in done.out
    found = {check["name"]: check["verdict"] for check in refold("doctor", "--json").json}
    assert found["projections"] == "warn"
    assert found["schema"] == "ok"


@pytest.mark.parametrize(("verdict", "status"), [("ok", 0), ("unseen", 0), ("warn", 1), ("fail", 1)])
def test_exit_status(refold: Refold, monkeypatch: pytest.MonkeyPatch, verdict: str, status: int) -> None:
    found = [Check("roles", verdict, "as it is", "" if verdict == "ok" else "do this")]  # type: ignore[arg-type]
    monkeypatch.setattr("refold.inspect.doctor.doctor.doctor", lambda conn, url, folder: found)
    assert refold("doctor").status == status


def test_it_cannot_look(bare: Refold, database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        elsewhere = database_url.replace(f"/{conn.info.dbname}?", "/no_such_database?")
    assert bare("doctor", "--database-url", elsewhere).status == 2


def test_the_first_line_is_the_verdict(refold: Refold, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Check("disk", "fail", "full", "Make room."),
        Check("schema", "unseen", "hidden", "GRANT it;"),
        Check("roles", "warn", "none", "GRANT it;"),
        Check("cluster", "unseen", "hidden", "GRANT it;"),
    ]
    monkeypatch.setattr("refold.inspect.doctor.doctor.doctor", lambda conn, url, folder: found)
    lines = refold("doctor").out.splitlines()
    assert lines[:2] == ["fail: disk", "warn: roles"]
    assert "schema, cluster: GRANT it;" in lines, "one command that mends two is told once"
    del found[0], found[1]
    assert refold("doctor").out.splitlines()[0] == "nothing to do; 2 checks could not be done"
