"""Who holds an old snapshot is named while it is held, and what is added is folded once it is over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.reconcile import reconcile
from refold.inspect.doctor.transactions import holding_vacuum
from refold.postgres.old_snapshots import HARMLESS, UNDATED, Held
from refold.service.duties import compact_checksums
from refold.service.duties.held_snapshots import findings, run
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events

Connection = psycopg.Connection[Any]
NOBODYS = Compiler(None)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def session(seconds: float | None, transactions: int, application: str = "report") -> Held:
    return Held("session", "17", transactions, seconds, NOON, application, "ann")


@pytest.mark.parametrize(
    ("one", "old"),
    [
        (session(61.0, HARMLESS), True),
        (session(60.0, HARMLESS), False),
        # Idle for hours, or with a snapshot for each statement.
        (session(9e9, HARMLESS - 1), False),
        (Held("replication slot", "cdc", UNDATED, None, None, "", ""), True),
        (Held("replication slot", "cdc", UNDATED - 1, None, None, "", ""), False),
    ],
)
def test_old_in_seconds_and_in_transactions(one: Held, old: bool) -> None:
    assert one.old(60) is old
    assert [check.verdict for check in holding_vacuum([one])] == (["warn"] if old else ["ok"])


def test_the_doctor_names_the_oldest() -> None:
    [check] = holding_vacuum([session(90.0, 5000)])
    assert check.found == "1, the oldest session 17 (report), 90 s, 5,000 transactions"
    assert "SELECT pg_terminate_backend(17);" in check.remedy


def test_a_load_of_our_own_is_no_incident() -> None:
    assert findings([session(90.0, 5000, "refold worker")]) == []
    assert [one.subject for one in findings([session(90.0, 5000)])] == ["session 17"]


def hold(connect: Callable[..., Connection]) -> Connection:
    """Whoever has taken a snapshot and does not let it go."""
    holder = connect()
    holder.execute("SET application_name = 'long report'")
    holder.commit()
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT count(*) FROM refold.events")
    return holder


def test_a_held_snapshot_is_named(
    connect: Callable[..., Connection],
    worker: Connection,
    admin: Connection,
    limit: Callable[..., None],
    incidents: Callable[[str], list[Incident]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(held_snapshot_after=0)
    holder = hold(connect)
    run(worker, NOBODYS)
    # Transactions are those of the whole server, on which other tests run: far from the bound, on either side.
    assert incidents("held_snapshot") == []
    monkeypatch.setattr("refold.postgres.old_snapshots.HARMLESS", 5)
    for _ in range(5):
        admin.execute("SELECT pg_current_xact_id()")
    run(worker, NOBODYS)
    [incident] = incidents("held_snapshot")
    assert incident.subject == f"session {holder.info.backend_pid}"
    assert incident.evidence["application"] == "long report"
    assert incident.evidence["remedy"] == f"SELECT pg_terminate_backend({holder.info.backend_pid});"
    holder.commit()
    run(worker, NOBODYS)
    [incident] = incidents("held_snapshot")
    assert incident.resolved_at is not None
    assert worker.execute("SELECT current_user").fetchone() == ("refold_worker",)


def counts(admin: Connection) -> tuple[int, int]:
    row = admin.execute(
        "SELECT (SELECT count(*) FROM refold.cursors), (SELECT count(*) FROM refold.checksum_changes)"
    ).fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.live("shop")
def test_folding_waits_for_the_end_of_a_held_snapshot(
    database_url: str,
    connect: Callable[..., Connection],
    worker: Connection,
    admin: Connection,
    limit: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_live(database_url)
    monkeypatch.setattr("refold.postgres.old_snapshots.HARMLESS", 1)
    monkeypatch.setattr(compact_checksums, "KEPT", 1)
    limit(held_snapshot_after=0)
    holder = hold(connect)
    for number in range(4):
        append(admin, events(3, f"more{number}-"))
        drain(database_url)
    before = counts(admin)
    assert min(before) > 4
    compact_checksums.run(worker, NOBODYS)
    assert counts(admin) == before
    assert reconcile(worker, SHOP, depth="quick").clean
    holder.commit()
    compact_checksums.run(worker, NOBODYS)
    builds = admin.execute("SELECT count(*) FROM refold.builds").fetchone()
    assert builds is not None
    assert counts(admin) == (builds[0], 0)
    assert reconcile(worker, SHOP, depth="quick").clean
    append(admin, events(3, "after-"))
    drain(database_url)
    assert wrong(database_url) == {}
    assert reconcile(worker, SHOP, depth="deep").clean


@pytest.mark.live("shop")
def test_where_nobody_may_see_who_holds_little_is_wasted(
    database_url: str, worker: Connection, admin: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is dead and not vacuumed is bounded."""
    make_live(database_url)
    for number in range(3):
        append(admin, events(3, f"more{number}-"))
        drain(database_url)
    before = counts(admin)
    monkeypatch.setattr(compact_checksums, "DEAD", 0)
    compact_checksums.run(worker, NOBODYS)
    assert counts(admin) == before


@pytest.mark.live("shop")
def test_an_audit_sees_no_fold_in_the_middle(
    database_url: str, connect: Callable[..., Connection], worker: Connection, admin: Connection
) -> None:
    """Its snapshot shows the changes, and not what they have been added to."""
    make_live(database_url)
    append(admin, events(9))
    drain(database_url)
    audit = connect()
    audit.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    total = (
        "SELECT build_id, relation, slice, sum(rows), sum(hash) FROM (TABLE refold.checksums"
        " UNION ALL TABLE refold.checksum_changes) AS f GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    before = audit.execute(total).fetchall()
    compact_checksums.run(worker, NOBODYS)
    assert counts(admin)[1] == 0
    assert audit.execute(total).fetchall() == before
    assert admin.execute(total).fetchall() == before
