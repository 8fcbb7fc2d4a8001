"""`refold scrub` and `refold scrub accept`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.tampering import tamper

from .conftest import Refold

SEGMENT = "refold.events_000000000000001"


@pytest.fixture
def damaged(
    refold: Refold,
    metric: Callable[[str, str], Path],
    record: Callable[..., None],
    conn: psycopg.Connection[Any],
) -> Refold:
    """A log of three events, one of which is gone; all three are counted."""
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    refold("deploy")
    record("view=ann", "view=bob", "view=cy")
    refold("worker", "--drain")
    tamper(conn, "DELETE FROM refold.events WHERE event_id = '2'")
    conn.commit()
    return refold


def test_damage_is_named_and_keeps_a_metric_from_being_healed(damaged: Refold) -> None:
    found = damaged("scrub", "--json")
    assert found.status == 1
    assert [(one["fault"], one["event_id"], one["segment"]) for one in found.json["damage"]] == [
        ("missing", "2", SEGMENT)
    ]
    healed = damaged("reconcile")
    assert healed.status == 1
    assert "not healed: counts: the log is damaged; `refold scrub` names the events" in healed.out
    assert "no drift" not in healed.out
    assert damaged("reconcile", "--json").json["unhealed"] == ["counts"]
    # All of it is one incident.
    assert [one["kind"] for one in damaged("incidents", "--json").json] == ["log_damage"]
    assert "view,3" in damaged("query", "SELECT * FROM counts", "--csv").out


def test_damage_is_told_once_however_many_metrics_it_affects(
    damaged: Refold, metric: Callable[[str, str], Path]
) -> None:
    damaged("scrub", "accept", SEGMENT, "--reason", "disk 3")
    for number in range(3):
        metric(f"more{number}", f"SELECT action, count(*) + {number} AS events FROM events GROUP BY action")
    damaged("deploy")
    with psycopg.connect(damaged("url").out.strip(), autocommit=True) as conn:
        tamper(conn, "DELETE FROM refold.events WHERE event_id = '3'")
    told = damaged("reconcile")
    assert told.err.count("the log is damaged, so refold computes nothing from it") == 1
    assert "counts, more0, more1, more2 were not audited: the log is damaged" in told.err
    assert damaged("status").out.count("log_damage") == 1
    (incident,) = [one for one in damaged("incidents", "--open", "--json").json if one["kind"] != "held_back"]
    assert incident["evidence"]["not_healed"] == ["counts", "more0", "more1", "more2"]


def test_a_rebuild_that_was_refused_says_why(damaged: Refold) -> None:
    assert damaged("rebuild", "counts").status != 0
    status = damaged("status").out
    assert "not promoted" in status and "ready to promote" not in status
    assert "refused   counts__" in status
    assert "is not promoted: the log is damaged" in status
    assert "Then run `refold promote counts`." in status


def test_accepting_needs_a_reason_and_the_right_name(damaged: Refold) -> None:
    damaged("scrub")
    without = damaged("scrub", "accept", SEGMENT)
    assert (without.status, "--reason" in without.err) == (2, True)
    other = damaged("scrub", "accept", "refold.events_000000000000002", "--reason", "x")
    assert other.status == 2
    assert f"Did you mean {SEGMENT}?" in other.err


def test_what_would_be_accepted_and_what_was(damaged: Refold) -> None:
    dry = damaged("scrub", "accept", SEGMENT, "--dry-run")
    assert (dry.status, f"{SEGMENT}: 1 event missing would be accepted" in dry.out) == (0, True)
    assert damaged("scrub").status == 1
    done = damaged("scrub", "accept", SEGMENT.removeprefix("refold."), "--reason", "disk 3")
    assert "1 event missing accepted" in done.out
    assert damaged("scrub").status == 0
    assert damaged("scrub", "accept", SEGMENT, "--reason", "again").out.endswith("there is nothing to accept\n")
    assert damaged("reconcile").status == 1
    assert damaged("reconcile").status == 0
    assert "view,2" in damaged("query", "SELECT * FROM counts", "--csv").out
