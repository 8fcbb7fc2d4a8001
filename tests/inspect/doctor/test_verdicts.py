"""The doctor's verdicts on figures."""

from __future__ import annotations

from typing import Any

import pytest

from refold.inspect.archive import ArchiveStatus
from refold.inspect.doctor import archive, notifications, room, server, sessions, transactions
from refold.inspect.doctor.access import migrated
from refold.inspect.doctor.check import graded
from refold.store.log.blocking_transactions import BlockingTransaction

GIB = 2**30
FINE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "autovacuum": "on",
    "server_encoding": "UTF8",
}


@pytest.mark.parametrize(("value", "verdict"), [(0.9, "ok"), (1.0, "warn"), (1.9, "warn"), (2.0, "fail")])
def test_graded(value: float, verdict: str) -> None:
    assert graded(value, 1.0, 2.0) == verdict


@pytest.mark.parametrize(
    ("changed", "verdicts"),
    [
        ({}, ["ok"]),
        ({"fsync": "off"}, ["fail"]),
        ({"synchronous_commit": "off"}, ["warn"]),
        ({"synchronous_commit": "remote_apply"}, ["ok"]),
        ({"autovacuum": "off", "server_encoding": "SQL_ASCII"}, ["fail", "fail"]),
    ],
)
def test_settings(changed: dict[str, str], verdicts: list[str]) -> None:
    assert [check.verdict for check in server.judged(FINE | changed)] == verdicts


@pytest.mark.parametrize(
    ("before", "after", "theirs", "verdict"),
    [
        (100.0, 100.1, 100.05, "ok"),
        # A slow answer is no skew.
        (100.0, 130.0, 115.0, "ok"),
        (100.0, 100.1, 102.0, "warn"),
        (100.0, 100.1, 98.0, "warn"),
        (100.0, 100.1, 3700.0, "fail"),
    ],
)
def test_clock(before: float, after: float, theirs: float, verdict: str) -> None:
    assert server.skew(before, after, theirs).verdict == verdict


def test_the_oldest_database_counts() -> None:
    found = server.oldest([("young", 1000), ("old", 1_900_000_000), ("middle", 1_500_000_000)])
    assert (found.verdict, "in old" in found.found) == ("fail", True)


@pytest.mark.parametrize(
    ("upper", "newest", "verdict"),
    [(3_000_001, 900_000, "ok"), (3_000_001, 2_600_000, "warn"), (3_000_001, 2_950_000, "fail"), (1, 0, "fail")],
)
def test_room(upper: int, newest: int, verdict: str) -> None:
    assert room.headroom(3, upper, 1_000_000, 2, newest)[0].verdict == verdict


def test_room_for_what_producers_bring() -> None:
    (check, _) = room.headroom(3, 3_000_001, 1_000_000, 2, 900_000, 1_500_000, 1_000.0)
    assert check.verdict == "ok"
    assert check.found == "3, with space for 2,100,000 more events, 35 minutes at 1,000 events per second"
    (check, _) = room.headroom(3, 3_000_001, 1_000_000, 2, 900_000, 2_500_000)
    assert check.verdict == "warn" and "SELECT refold.ensure_room(" in check.remedy
    (check, _) = room.headroom(3, 3_000_001, 1_000_000, 2, 900_000, short=60.0)
    assert check.verdict == "warn" and check.found.endswith("in the last hour a statement failed for lack of space")
    assert "sent its events again" in check.remedy and "SELECT refold.ensure_room(" in check.remedy
    assert room.headroom(3, 3_000_001, 1_000_000, 2, 900_000, short=7200.0)[0].verdict == "ok"


def test_many_segments() -> None:
    assert [check.verdict for check in room.headroom(2_000, 10**12, 1_000_000, 2, 10)] == ["ok", "warn", "ok"]


@pytest.mark.parametrize(("used", "verdict"), [(50, "ok"), (90, "warn"), (97, "fail")])
def test_disk(used: int, verdict: str) -> None:
    assert room.filled("/data", used * GIB, 100 * GIB).verdict == verdict


@pytest.mark.parametrize(
    ("tables", "verdicts"),
    [
        ([("a", 10, 0, False)], ["ok"]),
        ([("a", 10, 1000, False)], ["ok"]),
        ([("a", 150_000, 100_000, False)], ["warn"]),
        ([("a", 50_000, 100_000, False), ("b", 0, 0, True)], ["fail", "fail"]),
    ],
)
def test_dead_rows(tables: list[tuple[str, int, int, bool]], verdicts: list[str]) -> None:
    assert [check.verdict for check in room.swept(tables)] == verdicts


@pytest.mark.parametrize(
    ("rings", "proxied", "verdict"), [(True, True, "ok"), (False, True, "warn"), (False, False, "warn")]
)
def test_wake_ups(rings: bool, proxied: bool, verdict: str) -> None:
    found = notifications.listening(rings, proxied)
    assert (found.verdict, "proxy" in found.found) == (verdict, proxied)


def test_two_phase_commit_is_named() -> None:
    assert "PREPARE" in notifications.quiet([], True).found
    assert notifications.quiet([], False).remedy == ""
    assert "off for bank" in notifications.quiet(["bank"], True).found


@pytest.mark.parametrize(
    ("rows", "verdicts"),
    [
        ([], ["ok"]),
        ([("session 1", None, False)], ["ok"]),
        ([("session 1", 10.0, False), ("session 2", None, True)], ["ok", "unseen"]),
        ([("session 1", 4000.0, False)], ["warn"]),
        ([("prepared transaction x", 90_000.0, False)], ["fail"]),
        ([("session 2", None, True)], ["unseen"]),
    ],
)
def test_old_transactions(rows: Any, verdicts: list[str]) -> None:
    assert [check.verdict for check in transactions.long_open(rows)] == verdicts


@pytest.mark.parametrize(("here", "verdict"), [("0004", "ok"), ("0001", "fail"), ("0009", "fail"), (None, "fail")])
def test_schema(here: str | None, verdict: str) -> None:
    assert migrated(here, "0004").verdict == verdict


def test_the_remedy_for_who_holds_events_back_can_be_pasted() -> None:
    old = BlockingTransaction("it's mine", 90.0, "me", None, "me")
    [prepared] = transactions.holding("prepared transactions", [old], "gid")
    assert "ROLLBACK PREPARED 'it''s mine';" in prepared.remedy
    [session] = transactions.holding("open writers", [BlockingTransaction("17", 90.0, "psql", None, "me")], "pid")
    assert "SELECT pg_terminate_backend(17);" in session.remedy


@pytest.mark.parametrize(
    ("publications", "faceless", "verdict"),
    [([], [], "ok"), (["cdc"], [], "ok"), ([], ["refold_builds.daily"], "warn"), (["cdc"], ["refold.x"], "fail")],
)
def test_publications(publications: list[str], faceless: list[str], verdict: str) -> None:
    check = sessions.published(publications, faceless)
    assert (check.verdict, "migrate" in check.remedy) == (verdict, bool(faceless))


@pytest.mark.parametrize(
    ("found", "verdicts"),
    [
        ([], ["ok"]),
        ([("role app", "statement_timeout", "500ms")], ["ok"]),
        ([("role app", "default_transaction_read_only", "off")], ["ok"]),
        ([("role app", "default_transaction_read_only", "on"), ("all", "jit", "off")], ["warn"]),
        ([("database shop", "default_transaction_isolation", "repeatable read")], ["warn"]),
        ([("all", "session_replication_role", "replica")], ["warn"]),
    ],
)
def test_settings_of_logins(found: list[tuple[str, str, str]], verdicts: list[str]) -> None:
    checks = sessions.told(found)
    assert [check.verdict for check in checks] == verdicts
    for check in checks:
        assert check.verdict == "ok" or "RESET" in check.remedy


def test_strangers_at_the_sleepers_lock() -> None:
    workers = (1, "w", "refold worker", False)
    assert notifications.strangers([workers]) == []
    alone, shared = notifications.strangers([workers, (2, "x", "psql", True), (3, "x", "psql", False)])
    assert "poll" in alone.found and "notifies" in shared.found and "terminate_backend(2)" in alone.remedy


@pytest.mark.parametrize(("number", "said"), [(1, "1 time:"), (2, "2 times:")])
def test_failures_of_the_archive(number: int, said: str) -> None:
    none = dict.fromkeys(ArchiveStatus.__dataclass_fields__)
    status = ArchiveStatus(**(none | {"claimed": True, "gone": 0, "failures": number, "error": "no room"}))  # type: ignore[arg-type]
    assert said in str(archive.judged(status, 0)[0])


def test_damaged_files_of_purged_segments_are_the_archive_s() -> None:
    none = dict.fromkeys(ArchiveStatus.__dataclass_fields__)
    status = ArchiveStatus(**(none | {"claimed": True, "gone": 0, "failures": 0}))  # type: ignore[arg-type]
    assert archive.judged(status, 0) == []
    (check,) = archive.judged(status, 13)
    assert check.verdict == "warn" and "13 segments" in check.found and "refold incidents" in check.remedy
