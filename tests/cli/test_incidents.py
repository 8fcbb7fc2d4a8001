"""`refold incidents`: what is open and what was, by kind and time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from law import worker_connection
from refold.incidents import detect, resolve

from .conftest import Refold


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with worker_connection(database_url) as conn:
        yield conn


def test_nothing_happened(refold: Refold) -> None:
    assert refold("incidents").out.startswith("no incidents")
    assert refold("incidents", "--open", "--json").json == []
    assert "incidents" not in refold("status").out


def test_what_is_open_and_what_was(refold: Refold, worker: psycopg.Connection[Any]) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    detect(worker, "held_back", "session 17", by="held back", evidence={"pid": 17, "gid": None}, started_at=hour_ago)
    detect(worker, "lag", "daily__1", by="progress", evidence={"seconds": 61.5}, started_at=hour_ago)
    assert "1 held_back, 1 lag open" in refold("status").out
    assert refold("status", "--json").json["incidents"] == {"held_back": 1, "lag": 1}
    resolve(worker, "lag", "daily__1", by="progress")

    every, opened = refold("incidents"), refold("incidents", "--open")
    assert every.status == opened.status == 0
    assert "session 17" in opened.out and "pid 17" in opened.out and "open for 1.0 h" in opened.out
    assert "gid" not in opened.out
    assert "daily__1" in every.out and "seconds 61.5" in every.out and "by progress" in every.out
    assert "daily__1" not in opened.out
    assert [one["subject"] for one in refold("incidents", "--kind", "lag", "--json").json] == ["daily__1"]
    assert [one["kind"] for one in refold("incidents", "--kind", "held-back", "--json").json] == ["held_back"]


def test_since(refold: Refold, worker: psycopg.Connection[Any], conn: psycopg.Connection[Any]) -> None:
    """What was over before is left out; what is open counts, whenever it began."""
    for subject in ("old", "long"):
        detect(worker, "lag", subject, by="progress", evidence={})
    resolve(worker, "lag", "old", by="progress")
    conn.execute(
        "UPDATE refold.incidents SET started_at = started_at - interval '8 days',"
        " detected_at = detected_at - interval '8 days', resolved_at = resolved_at - interval '8 days'"
    )
    conn.commit()
    assert [one["subject"] for one in refold("incidents", "--json").json] == ["long"]
    assert [one["subject"] for one in refold("incidents", "--since", "2w", "--json").json] == ["old", "long"]


def test_wrong_words(refold: Refold) -> None:
    done = refold("incidents", "--kind", "stalls")
    assert done.status == 2
    assert "did you mean stalled?" in done.err
    done = refold("incidents", "--since", "yesterday")
    assert done.status == 2
    assert "7d" in done.err
