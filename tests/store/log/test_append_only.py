"""The log cannot be changed, by its owner or a superuser neither, and the refusal says what to do instead."""

from typing import Any

import psycopg
import pytest

from refold import append
from tests.support.making import events, ids, small_segments, stored

Connection = psycopg.Connection[Any]

CHANGES = [
    "UPDATE {} SET action = 'other'",
    "UPDATE {} SET ts = ts WHERE false",
    "DELETE FROM {}",
    "DELETE FROM {} WHERE event_id = 'e1'",
    "TRUNCATE {}",
    "TRUNCATE {} CASCADE",
    "MERGE INTO {} AS t USING (SELECT 'e1' AS id) AS s ON t.event_id = s.id WHEN MATCHED THEN DELETE",
    "WITH gone AS (DELETE FROM {} RETURNING *) SELECT * FROM gone",
]


@pytest.fixture
def filled(admin: Connection) -> Connection:
    """A log of several segments with events in them."""
    small_segments(admin, 10)
    append(admin, events(25))
    return admin


def segments(conn: Connection) -> list[str]:
    return [segment for (segment,) in conn.execute("SELECT segment::text FROM refold.segments ORDER BY 1").fetchall()]


@pytest.mark.parametrize("role", ["refold_owner", "superuser"])
def test_no_event_is_changed_or_removed(filled: Connection, role: str) -> None:
    if role != "superuser":
        filled.execute(f"SET ROLE {role}".encode())
    with filled.transaction():
        # Also where a session may write wherever it likes.
        filled.execute("SET search_path = refold")
        for table in ["refold.events", "ONLY refold.events", *segments(filled)]:
            for change in CHANGES:
                if "ONLY" in table and ("TRUNCATE" in change or "MERGE" in change):
                    continue
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused, filled.transaction():
                    filled.execute(change.format(table).encode())
                diagnosis = refused.value.diag
                assert "refused: the log is append-only" in (diagnosis.message_primary or "")
                assert "Append a correcting event instead" in (diagnosis.message_hint or "")
    assert stored(filled) == ids(events(25))


def test_an_upsert_is_a_change(filled: Connection) -> None:
    row = "INSERT INTO refold.events (event_id, action, ts) VALUES ('e1', 'x', now()) "
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=r"UPDATE on refold\.events refused"):
        filled.execute((row + "ON CONFLICT (txid, position) DO UPDATE SET action = 'x'").encode())
    # Doing nothing is none; but the ledger knows the id all the same.
    with pytest.raises(psycopg.errors.UniqueViolation):
        filled.execute((row + "ON CONFLICT DO NOTHING").encode())


@pytest.mark.parametrize("role", ["refold_owner", "superuser"])
def test_a_segment_takes_events_through_the_log_alone(filled: Connection, role: str) -> None:
    """Written directly, a segment would pass the ledger and ring no worker."""
    if role != "superuser":
        filled.execute(f"SET ROLE {role}".encode())
    for segment in segments(filled):
        columns = f"{segment} (position, event_id, action, ts, metadata)"
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
            filled.execute(f"INSERT INTO {columns} VALUES (3, 'x', 'x', now(), '{{}}')".encode())
        assert "INSERT into refold.events itself" in (refused.value.diag.message_hint or "")
        with (
            pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="the log is append-only"),
            filled.cursor() as cursor,
            cursor.copy(f"COPY {columns} FROM STDIN".encode()) as copy,
        ):
            copy.write_row([3, "x", "x", "2026-03-02", "{}"])
    assert stored(filled) == ids(events(25))


def test_the_ledger_forgets_nothing(filled: Connection) -> None:
    """Without its line in the ledger an event gets in a second time."""
    for change in ("UPDATE {} SET digest = 0", "DELETE FROM {}", "TRUNCATE {}"):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="the log is append-only"):
            filled.execute(change.format("refold.event_ids").encode())
