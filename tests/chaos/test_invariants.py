"""The count of the log finds what it is there to find: each kind of damage is done once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from chaos.findings import Findings
from chaos.invariants import check_log, check_repairs
from chaos.journal import Count, Journal, read
from chaos.made import Maker
from refold import append

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def count(conn: Connection, tmp_path: Path) -> Iterator[Count]:
    """Events that were appended and acknowledged, two of them rejected; the log's guards are off."""
    maker = Maker("p", Random(1))
    events = maker.clean(20)
    conflict = {**events[0], "metadata": {"label": "p/other/"}}
    invalid = {**events[1], "id": "p-wrong", "ts": "infinity", "metadata": {"label": "p/wrong/", "invalid": True}}
    sent = [*events, events[3], conflict, invalid]
    journal = Journal(tmp_path / "p")
    batch = journal.attempted("p", sent)
    journal.acknowledged(batch, [receipt.answer.value for receipt in append(conn, sent, source="p")])
    conn.commit()
    for table in ("events", "event_ids"):
        conn.execute(f"ALTER TABLE refold.{table} DISABLE TRIGGER USER".encode())
    yield read([tmp_path / "p"])
    conn.rollback()


def found_in(conn: Connection, count: Count) -> Findings:
    found = Findings()
    check_log(conn, count, found)
    return found


def test_nothing_is_found_in_a_log_that_is_right(conn: Connection, count: Count) -> None:
    found = found_in(conn, count)
    assert (found.violations, found.lost, found.double) == ({}, 0, 0)


def _lose(conn: Connection) -> None:
    conn.execute("DELETE FROM refold.events WHERE event_id = 'p-5'")


def _double(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO refold.events (event_id, user_id, action, ts, metadata)"
        " SELECT event_id, user_id, action, ts, metadata FROM refold.events WHERE event_id = 'p-5'"
    )


def _alter(conn: Connection) -> None:
    conn.execute("UPDATE refold.events SET user_id = 'somebody' WHERE event_id = 'p-5'")


def _invent(conn: Connection) -> None:
    conn.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('nobody-1', 'view', now())")


def _let_the_conflict_win(conn: Connection) -> None:
    conn.execute("UPDATE refold.events SET metadata = '{\"label\": \"p/other/\"}' WHERE event_id = 'p-1'")


def _forget_what_was_rejected(conn: Connection) -> None:
    conn.execute("DELETE FROM refold.rejected WHERE answer = 'invalid'")


@pytest.mark.parametrize(
    ("damage", "invariant"),
    [
        (_lose, "I1"),
        (_double, "I2"),
        (_alter, "I5"),
        (_invent, "I5"),
        (_let_the_conflict_win, "I5"),
        (_forget_what_was_rejected, "I7"),
    ],
)
def test_damage_is_found(conn: Connection, count: Count, damage: Callable[[Connection], None], invariant: str) -> None:
    damage(conn)
    assert invariant in found_in(conn, count).violations


DAMAGED = """
INSERT INTO refold.incidents (kind, subject, started_at, detected_at, detected_by, resolved_at, resolved_by)
SELECT 'log_damage', 's', now() - one, now() - one, 'test', now() + one, 'test'
FROM (VALUES (interval '1 min')) AS v (one)
"""


@pytest.mark.parametrize(
    ("key", "live", "damaged", "explained"),
    [
        ('{"user_id": "ann"}', True, True, False),
        ('{"user_id": "damaged-7"}', True, False, True),
        ('{"event_id": "damaged-7-2"}', True, False, True),
        ('{"day": "2026-03-02"}', False, True, True),
        ('{"day": "2026-03-02"}', False, False, False),
    ],
)
def test_a_healed_row_needs_an_explanation(
    conn: Connection, key: str, live: bool, damaged: bool, explained: bool
) -> None:
    """Only what damage to the log explains, in a build that nobody saw yet, may have been healed in a witness."""
    conn.execute("INSERT INTO refold.deployments (kind) VALUES ('deploy')")
    conn.execute(
        """
        INSERT INTO refold.builds
            (projection, fingerprint, number, table_name, language, definition, upkeep, deployment, state, promoted_at)
        SELECT 'daily', 'f', 1, 't', 'sql', '', 'merge', deployment, 'live', now() + %s * interval '1 minute'
        FROM refold.deployments
        """,
        (-1 if live else 1,),
    )
    if damaged:
        conn.execute(DAMAGED)
    conn.execute(
        "INSERT INTO refold.repairs (build_id, projection, relation, kind, key)"
        " SELECT build_id, 'daily', 't', 'drifted', %s::jsonb FROM refold.builds",
        (key,),
    )
    found = Findings()
    assert check_repairs(conn, found) == 1
    assert (found.violations == {}) == explained
