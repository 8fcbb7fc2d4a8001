"""A capture that could not add events is an incident until a backfill has closed its gap; a pause by command is no
incident."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from refold.service.duties.capture_gaps import failed, run
from refold.store import captures as store
from refold.store.builds.compiled import Compiler
from refold.store.captures import COUNTED, Gaps
from refold.store.incidents import Incident
from tests.support.capturing import ORDERS, TABLE, Captured, Connection

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PAUSES = ORDERS.replace("columns", 'on_error = "pause"\ncolumns', 1)
PRIVILEGE = "REVOKE INSERT (event_id) ON refold.events FROM refold_capture"
GIVEN_BACK = "GRANT INSERT (event_id) ON refold.events TO refold_capture"


@pytest.fixture
def captured(tmp_path: Path, database_url: str, admin: Connection) -> Captured:
    admin.execute(TABLE.encode())
    return Captured(tmp_path, database_url, admin)


def test_only_what_failed_is_found() -> None:
    gaps = {
        1: Gaps(True, NOON, 3, False, None),
        2: Gaps(True, NOON, 1, True, None),
        3: Gaps(False, NOON, COUNTED, True, "disk full"),
        4: Gaps(True, NOON, 1, True, "of a capture that is dropped"),
    }
    found = failed({1: "by_command", 2: "seen_by_an_observer", 3: "resumed"}, gaps)
    assert [(one.subject, one.evidence["paused"], one.evidence["more"]) for one in found] == [
        ("seen_by_an_observer", True, False),
        ("resumed", False, True),
    ]


def test_from_the_error_to_the_backfill(
    captured: Captured, admin: Connection, worker: Connection, incidents: Callable[[str], list[Incident]]
) -> None:
    captured.deploy(orders=PAUSES)
    store.pause(admin, captured.capture())
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    run(worker, Compiler(None))
    assert incidents("capture_gap") == []
    store.resume(admin, captured.capture())
    captured.backfill()

    admin.execute(PRIVILEGE.encode())
    for number in (2, 3):
        admin.execute("INSERT INTO shop.orders (id) VALUES (%s)", (number,))
    run(worker, Compiler(None))
    (found,) = incidents("capture_gap")
    assert (found.subject, found.evidence["statements"], found.evidence["paused"]) == ("orders", 2, True)
    assert "permission denied" in found.evidence["error"]
    admin.execute(GIVEN_BACK.encode())
    store.resume(admin, captured.capture())
    run(worker, Compiler(None))
    (found,) = incidents("capture_gap")
    assert (found.resolved_at, found.evidence["paused"]) == (None, False)
    captured.backfill()
    run(worker, Compiler(None))
    (found,) = incidents("capture_gap")
    assert found.resolved_by == "capture gaps"
    assert captured.inserts() == [1, 2, 3]


def test_a_capture_without_a_backfill_has_no_gap_after_it_is_resumed(
    captured: Captured, admin: Connection, worker: Connection, incidents: Callable[[str], list[Incident]]
) -> None:
    captured.deploy(orders=PAUSES.replace('"insert", ', ""))
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    admin.execute(PRIVILEGE.encode())
    admin.execute("UPDATE shop.orders SET status = 'x'")
    run(worker, Compiler(None))
    admin.execute(GIVEN_BACK.encode())
    store.resume(admin, captured.capture())
    run(worker, Compiler(None))
    assert [one.resolved_by for one in incidents("capture_gap")] == ["capture gaps"]
    assert store.gaps(admin) == {}


def test_a_capture_that_is_dropped_leaves_no_incident(
    captured: Captured, admin: Connection, worker: Connection, incidents: Callable[[str], list[Incident]]
) -> None:
    captured.deploy(orders=PAUSES)
    admin.execute(PRIVILEGE.encode())
    admin.execute("INSERT INTO shop.orders (id) VALUES (1)")
    run(worker, Compiler(None))
    store.forget(admin, captured.capture())
    run(worker, Compiler(None))
    assert [one.resolved_by for one in incidents("capture_gap")] == ["capture gaps"]
