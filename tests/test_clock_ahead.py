"""A clock that was ahead: what it has written down lies in the future, and nothing may wait until that has come."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from refold import Log
from refold.engine.deployment.rollback import _changed_since
from refold.engine.reconcile import deep, rolling
from refold.engine.reconcile.reconcile import reconcile
from refold.model.pressure import Level
from refold.service.duties import blocking_transactions, lag_and_stall, missed_notifications, prune_statistics
from refold.service.duties.lag_and_stall import BuildProgress
from refold.service.duties.registry import DUTIES
from refold.service.duties.schedule import Schedule
from refold.store import tokens
from refold.store.builds.build import find, live
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, detect
from refold.store.incidents import find as incidents
from refold.store.log.blocking_transactions import BlockingTransaction
from refold.store.pressure import pressure, record
from refold.store.schema.settings import Settings
from refold.store.totals import latency_totals
from tests.support.law import worker_connection
from tests.support.live import SHOP, drain, make_live
from tests.support.making import events

Connection = psycopg.Connection[Any]
NOBODYS = Compiler(None)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
AHEAD = NOON + timedelta(days=365)
ALLOWED = Settings(lag_limit=60, stalled_after=300)
FUTURE = "clock_timestamp() + interval '1 year'"


def test_every_duty_is_due_again(admin: Connection, database_url: str) -> None:
    with worker_connection(database_url) as conn:
        schedule = Schedule(DUTIES)
        for _ in DUTIES:
            schedule.turn(conn, NOBODYS)
        admin.execute(f"UPDATE refold.duties SET started_at = {FUTURE}, ended_at = {FUTURE}".encode())
        schedule = Schedule(DUTIES)
        for _ in DUTIES:
            schedule.turn(conn, NOBODYS)
    late = admin.execute("SELECT name FROM refold.duties WHERE started_at > clock_timestamp()").fetchall()
    assert late == []


def test_a_duty_that_somebody_has_in_hand_is_taken_over(admin: Connection, database_url: str) -> None:
    """How long it has been at it is not known; its session is there."""
    with worker_connection(database_url) as conn:
        Schedule(DUTIES[:1]).turn(conn, NOBODYS)
        admin.execute(
            f"UPDATE refold.duties SET started_at = {FUTURE}, ended_at = NULL, pid = pg_backend_pid()".encode()
        )
        Schedule(DUTIES[:1]).turn(conn, NOBODYS)
    assert admin.execute("SELECT count(*) FROM refold.duties WHERE ended_at IS NOT NULL").fetchone() == (1,)


def test_a_clock_that_is_set_back_a_moment_changes_nothing(admin: Connection, database_url: str) -> None:
    with worker_connection(database_url) as conn:
        Schedule(DUTIES[:1]).turn(conn, NOBODYS)
        admin.execute("UPDATE refold.duties SET started_at = clock_timestamp() + interval '1 second'")
        before = admin.execute("SELECT started_at FROM refold.duties").fetchall()
        Schedule(DUTIES[:1]).turn(conn, NOBODYS)
    assert admin.execute("SELECT started_at FROM refold.duties").fetchall() == before


@pytest.mark.live("shop")
@pytest.mark.parametrize("finished", [True, False])
def test_the_rolling_audit_goes_on(finished: bool, admin: Connection, database_url: str) -> None:
    make_live(database_url)
    with Log(database_url) as log:
        log.append(events(30))
    drain(database_url)
    with worker_connection(database_url) as conn:
        compiler = Compiler(SHOP)
        builds = len(find(conn, "b.state = 'live'"))
        audited = {step.projection for _ in range(builds) if (step := rolling.step(conn, compiler)) is not None}
        assert len(audited) == builds
        done = FUTURE if finished else "NULL"
        admin.execute(
            f"UPDATE refold.audits SET began_at = {FUTURE}, stepped_at = {FUTURE}, finished_at = {done},"
            " upto_slice = NULL".encode()
        )
        again = {step.projection for _ in range(builds) if (step := rolling.step(conn, compiler)) is not None}
        assert again == audited
    assert admin.execute("SELECT count(*) FROM refold.audits WHERE began_at > clock_timestamp()").fetchone() == (0,)


@pytest.mark.live("shop")
def test_a_build_that_was_tried_in_the_future_does_not_come_last(admin: Connection, database_url: str) -> None:
    make_live(database_url)
    with worker_connection(database_url) as conn:
        compiler = Compiler(SHOP)
        while rolling.step(conn, compiler) is not None:
            pass
        admin.execute(
            "UPDATE refold.audits SET finished_at = NULL, upto_slice = NULL, steps = 0,"
            " began_at = clock_timestamp() - interval '30 days'"
        )
        daily = live(conn, "daily")
        assert daily is not None
        admin.execute(f"UPDATE refold.audits SET stepped_at = {FUTURE} WHERE build_id = {daily.build_id}".encode())
        step = rolling.step(conn, compiler)
        assert step is not None and step.projection == "daily"


@pytest.mark.live("shop")
def test_an_interrupted_audit_of_the_future_starts_from_the_beginning(admin: Connection, database_url: str) -> None:
    make_live(database_url)
    with worker_connection(database_url) as conn:
        daily = live(conn, "daily")
        assert daily is not None
        compiled = NOBODYS.of(conn, daily)
        mark = deep.begin(conn, daily.build_id, None, rolling=False)
        assert mark is not None
        admin.execute(f"UPDATE refold.audits SET began_at = {FUTURE}, upto_slice = 100".encode())
        [first], *_ = deep.steps(conn, compiled, resume=True)
        assert first[0] is None


@pytest.mark.live("shop")
def test_incidents_close(admin: Connection, database_url: str) -> None:
    make_live(database_url)
    with worker_connection(database_url) as conn:
        for kind, subject, evidence in (
            ("drift", "daily", {"depth": "deep"}),
            ("missed_notification", "notify", {"seen_at": (datetime.now(UTC) + timedelta(days=365)).isoformat()}),
        ):
            detect(conn, kind, subject, by="test", evidence=evidence)  # type: ignore[arg-type]
        admin.execute(f"UPDATE refold.incidents SET started_at = {FUTURE}, detected_at = {FUTURE}".encode())
        missed_notifications.run(conn, NOBODYS)
        while rolling.step(conn, Compiler(SHOP)) is not None:
            pass
        assert incidents(conn, "i.resolved_at IS NULL") == []


@pytest.mark.live("shop")
def test_what_a_deep_audit_saw_stays_open_where_the_builds_age_is_not_known(
    admin: Connection, database_url: str
) -> None:
    make_live(database_url)
    with worker_connection(database_url) as conn:
        detect(conn, "drift", "daily", by="test", evidence={"depth": "deep"})
        admin.execute(f"UPDATE refold.builds SET created_at = {FUTURE}".encode())
        reconcile(conn, SHOP, depth="slice")
        assert len(incidents(conn, "i.resolved_at IS NULL")) == 1


def test_what_was_counted_in_the_future_is_counted_today(admin: Connection, database_url: str) -> None:
    with worker_connection(database_url) as conn:
        admin.execute(f"INSERT INTO refold.duplicates (at, events) VALUES ({FUTURE}, 3), ({FUTURE}, 4)".encode())
        admin.execute(f"INSERT INTO refold.duplicates (at, events, folded) VALUES ({FUTURE}, 5, true)".encode())
        for number in (1, 2):
            admin.execute(
                f"INSERT INTO refold.latencies VALUES ({FUTURE} + interval '{number}min', 1, 'fresh', 7, 2)".encode()
            )
        prune_statistics.run(conn, NOBODYS)
        prune_statistics.run(conn, NOBODYS)
    assert admin.execute(
        "SELECT sum(events)::integer, bool_and(folded) FROM refold.duplicates WHERE at <= clock_timestamp()"
    ).fetchone() == (12, True)
    assert admin.execute("SELECT events FROM refold.latencies WHERE minute <= clock_timestamp()").fetchall() == [(4,)]


@pytest.mark.live("shop")
def test_latencies_are_added_up_from_now_on(admin: Connection, database_url: str) -> None:
    make_live(database_url)
    year = timedelta(days=365) // timedelta(minutes=1)
    with worker_connection(database_url) as conn:
        build = live(conn, "daily")
        assert build is not None
        prune_statistics.run(conn, NOBODYS)
        admin.execute("UPDATE refold.total_marks SET upto = upto + %s WHERE what = 'latencies'", (year,))
        prune_statistics.run(conn, NOBODYS)
        admin.execute(
            "INSERT INTO refold.latencies SELECT to_timestamp(upto * 60), %s, 'fresh', 7, 5 FROM refold.total_marks"
            " WHERE what = 'latencies'",
            (build.build_id,),
        )
        # Some minutes later.
        admin.execute("UPDATE refold.latencies SET minute = minute - interval '3 minutes'")
        admin.execute("UPDATE refold.total_marks SET upto = upto - 3 WHERE what = 'latencies'")
        prune_statistics.run(conn, NOBODYS)
        assert sum(latency_totals(conn, [build.build_id])[build.build_id, "fresh"].counts) == 5


def test_a_revived_build_cannot_say_what_came_later(database_url: str) -> None:
    with worker_connection(database_url) as conn:
        assert _changed_since(conn, 1, datetime.now(UTC) + timedelta(days=365))
        assert not _changed_since(conn, 1, datetime.now(UTC))


BUSY = BuildProgress(
    1, "daily", "daily__1", "live", None, True, NOON, "e1", NOON, NOON, None, [], NOON - timedelta(days=9)
)  # fmt: skip


@pytest.mark.parametrize(
    ("oldest_at", "moved_at", "since"),
    [
        (AHEAD, NOON - timedelta(hours=1), NOON - timedelta(hours=1)),
        (NOON - timedelta(hours=1), AHEAD, NOON - timedelta(hours=1)),
        (AHEAD, AHEAD, NOON - timedelta(days=9)),
        (AHEAD, NOON - timedelta(seconds=1), None),
    ],
)
def test_a_build_with_work_that_stands_still(oldest_at: datetime, moved_at: datetime, since: datetime | None) -> None:
    build = replace(BUSY, oldest_at=oldest_at, moved_at=moved_at)
    expected = [] if since is None else [since]
    found = lag_and_stall.causes([build], ALLOWED) + lag_and_stall.causes(
        [build], replace(ALLOWED, stalled_after=10**9)
    )
    assert [(one.kind, one.finding.started_at) for one in found] == [
        (kind, at) for kind in ("stalled", "lag") for at in expected
    ]


def test_a_transaction_of_the_future_holds_back_too() -> None:
    young, old = (
        BlockingTransaction(str(pid), seconds, "shop", AHEAD, "me") for pid, seconds in ((1, -5.0), (2, -9000.0))
    )
    assert [one.evidence["pid"] for one in blocking_transactions.held_back([young, old], [], ALLOWED)] == [2]


def test_a_wake_up_that_was_lost_in_the_future_is_over() -> None:
    def seen(at: datetime) -> Incident:
        evidence = {"seen_at": at.isoformat()}
        return Incident(1, "missed_notification", "notify", NOON, NOON, "listener", None, None, evidence, None)

    assert [
        len(missed_notifications.over([seen(at)], NOON)) for at in (AHEAD, NOON, NOON - missed_notifications.QUIET * 2)
    ] == [1, 0, 1]


def test_a_token_of_the_future(admin: Connection) -> None:
    """A revocation holds at once, whatever its time, and the last use is of today again."""
    _, kept = tokens.create(admin, "kept")
    tokens.create(admin, "revoked")
    tokens.revoke(admin, "revoked")
    admin.execute(f"UPDATE refold.tokens SET created_at = {FUTURE}, last_used_at = {FUTURE}".encode())
    admin.execute(f"UPDATE refold.tokens SET revoked_at = {FUTURE} WHERE name = 'revoked'".encode())
    assert [token.token_id for token in tokens.digests(admin).values()] == [kept.token_id]
    tokens.used(admin, [kept.token_id])
    assert admin.execute(
        "SELECT last_used_at <= clock_timestamp() FROM refold.tokens WHERE token_id = %s", (kept.token_id,)
    ).fetchone() == (True,)


def test_pressure_of_the_future_is_not_known_and_keeps_its_level(admin: Connection, database_url: str) -> None:
    with worker_connection(database_url) as conn:
        record(conn, [("lag", Level.slow, 900.0, 300.0, None)])
        assert pressure(admin).known
        admin.execute(f"UPDATE refold.pressure_signals SET seen_at = {FUTURE}, since = {FUTURE}".encode())
        found = pressure(admin)
        assert (found.known, found.level) == (False, Level.slow)
        record(conn, [("lag", Level.fine, 1.0, 300.0, None)])
        assert (pressure(admin).known, pressure(admin).level) == (True, Level.fine)
