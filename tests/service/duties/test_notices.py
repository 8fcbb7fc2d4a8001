"""Notices: written with the incident, sent at least once under one key, and never in the way of anything else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import standardwebhooks

from refold.service.duties import notices
from refold.service.duties.registry import NOTICES
from refold.service.duties.thread import DutyThread
from refold.store import notices as store
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Kind, become, detect, resolve
from tests.support.http_receiver import Exchange, Receiver, answers, closes, hangs, resets
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def route(worker: Connection, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a route to a receiver; all others end."""
    monkeypatch.setenv("PAGER_SECRET", SECRET)

    def made(receiver: Receiver, kind: str = "webhook", least: str = "ticket", **options: Any) -> None:
        signs = {"secrets": ["env:PAGER_SECRET"]} if kind == "webhook" else {}
        given = {
            "kind": kind,
            "least": least,
            "url": receiver.url,
            "allow_private": True,
            "timeout_s": 1,
            **signs,
            **options,
        }
        store.put(worker, {"pager": (kind, least, json.dumps(given))})

    return made


def work(conn: Connection) -> None:
    notices.run(conn, Compiler(None))


def open_one(conn: Connection, kind: Kind = "log_damage", subject: str = "segment 1") -> int:
    return detect(conn, kind, subject, by="a test", evidence={"event_id": "secret-event"})


def changes(conn: Connection) -> list[tuple[str, bool, bool]]:
    return [(one.change, one.sent_at is not None, one.left_out) for one in reversed(store.latest(conn, 100))]


def types(receiver: Receiver) -> list[str]:
    return [one.json["type"] for one in receiver.requests]


def test_an_incident_is_told_once_when_it_opens_and_once_when_it_is_over(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    number = open_one(worker)
    open_one(worker)
    work(worker)
    work(worker)
    resolve(worker, "log_damage", "segment 1", by="a person")
    work(worker)
    assert types(receiver) == ["incident.opened", "incident.resolved"]
    opened, over = receiver.requests
    assert opened.json["data"]["incident"] == over.json["data"]["incident"] == number
    assert (opened.json["data"]["level"], over.json["data"]["resolved_by"]) == ("page", "a person")
    assert b"secret-event" not in opened.body + over.body
    for one in (opened, over):
        standardwebhooks.Webhook(SECRET).verify(one.body.decode(), one.headers)
        assert one.headers["idempotency-key"] == one.headers["webhook-id"]
    assert opened.headers["webhook-id"] != over.headers["webhook-id"]


def test_a_notice_is_part_of_the_incident_s_transaction(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    with pytest.raises(ZeroDivisionError), worker.transaction():
        open_one(worker)
        assert len(store.latest(worker, 10)) == 1
        raise ZeroDivisionError
    work(worker)
    assert (store.latest(worker, 10), receiver.requests) == ([], [])


def test_without_routes_nothing_is_written(worker: Connection) -> None:
    open_one(worker)
    assert store.latest(worker, 10) == []


@pytest.mark.parametrize(
    "behaviour", [answers(500), answers(429, retry_after="1"), closes, resets, hangs, answers(301), answers(401)]
)
def test_a_receiver_that_fails_gets_the_same_notice_again_under_the_same_key(
    worker: Connection, receiver: Receiver, route: Callable[..., None], behaviour: Any
) -> None:
    route(receiver)
    receiver.behaviour = behaviour
    open_one(worker)
    work(worker)
    [failed] = store.routes(worker)
    assert (failed.failures, failed.retry_at is not None) == (1, True)
    work(worker)
    assert len({one.headers["webhook-id"] for one in receiver.requests}) == 1
    assert len(store.due(worker, "pager", 10)) == 1
    tried = len(receiver.requests)
    receiver.behaviour = answers(204)
    worker.execute("UPDATE refold.routes SET retry_at = now()")
    work(worker)
    work(worker)
    assert len(receiver.requests) == tried + 1
    assert len({one.headers["webhook-id"] for one in receiver.requests}) == 1
    assert len({one.body for one in receiver.requests}) == 1
    assert changes(worker) == [("opened", True, False)]
    [mended] = store.routes(worker)
    assert (mended.failures, mended.error) == (0, None)


def test_a_notice_that_was_sent_and_not_recorded_is_sent_again_under_the_same_key(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    open_one(worker)
    work(worker)
    worker.execute("UPDATE refold.notices SET sent_at = NULL")
    work(worker)
    assert len(receiver.requests) == 2
    assert len({one.headers["webhook-id"] for one in receiver.requests}) == 1


def test_a_notice_that_is_refused_holds_up_no_other(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    receiver.behaviour = lambda exchange: exchange.reply(422 if b"segment 1" in exchange.request.body else 204)
    open_one(worker)
    open_one(worker, subject="segment 2")
    work(worker)
    work(worker)
    assert changes(worker) == [("opened", True, True), ("opened", True, False)]
    assert len(receiver.requests) == 2


def test_what_ends_by_itself_is_told_nobody(worker: Connection, receiver: Receiver, route: Callable[..., None]) -> None:
    route(receiver)
    open_one(worker, "lag", "daily__1__1")
    open_one(worker, "outbox_collapsed", "crm")
    work(worker)
    resolve(worker, "lag", "daily__1__1", by="lag and stall")
    work(worker)
    assert (receiver.requests, changes(worker)) == ([], [("opened", True, True)])
    open_one(worker, "lag", "daily__1__1")
    worker.execute("UPDATE refold.notices SET due_at = now() WHERE sent_at IS NULL")
    resolve(worker, "lag", "daily__1__1", by="lag and stall")
    work(worker)
    assert types(receiver) == ["incident.opened", "incident.resolved"]


def sets_the_clock_back(admin: Connection, span: str) -> Callable[[Exchange], None]:
    """Answers, and makes all that was written before be of a later time."""

    def behaviour(exchange: Exchange) -> None:
        admin.execute(f"UPDATE refold.notices SET due_at = due_at + interval '{span}'".encode())
        admin.execute(
            f"UPDATE refold.incidents SET started_at = started_at + interval '{span}',"
            f" detected_at = detected_at + interval '{span}'".encode()
        )
        exchange.reply(204)

    return behaviour


@pytest.mark.parametrize("span", ["30 seconds", "1 year"])
def test_the_end_is_told_after_a_clock_was_set_back_while_the_begin_was_sent(
    worker: Connection,
    connect: Callable[..., Connection],
    receiver: Receiver,
    route: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    span: str,
) -> None:
    route(receiver)
    receiver.behaviour = sets_the_clock_back(connect(autocommit=True), span)
    open_one(worker)
    with monkeypatch.context() as killed:
        # The sender is killed between the answer and its record.
        killed.setattr(store, "sent", lambda conn, notices: None)
        work(worker)
    resolve(worker, "log_damage", "segment 1", by="a person")
    receiver.behaviour = answers(204)
    work(worker)
    assert types(receiver) == ["incident.opened", "incident.opened", "incident.resolved"]
    assert changes(worker) == [("opened", True, False), ("resolved", True, False)]


def test_what_a_clock_that_was_ahead_put_off_for_a_year_is_told(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    open_one(worker)
    worker.execute("UPDATE refold.notices SET due_at = due_at + interval '1 year'")
    work(worker)
    assert types(receiver) == ["incident.opened"]


def test_an_alert_whose_begin_lies_in_the_future_ends_now(
    worker: Connection, admin: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver, "alertmanager")
    open_one(worker)
    admin.execute(
        "UPDATE refold.incidents SET started_at = started_at + interval '1 year',"
        " detected_at = detected_at + interval '1 year'"
    )
    resolve(worker, "log_damage", "segment 1", by="a person")
    work(worker)
    for one in receiver.requests[-1].json:
        begins, ends = (datetime.fromisoformat(one[name]) for name in ("startsAt", "endsAt"))
        assert begins <= ends <= datetime.now(UTC)


def test_what_ends_between_the_look_and_the_attempt_is_not_told(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    open_one(worker)
    found = store.due(worker, "pager", 10)
    worker.execute("UPDATE refold.notices SET due_at = now() + interval '30 seconds'")
    resolve(worker, "log_damage", "segment 1", by="a person")
    assert (len(found), store.take(worker, found)) == (1, [])


def test_a_receiver_that_has_failed_for_days_is_still_tried(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    receiver.behaviour = answers(500)
    open_one(worker)
    worker.execute("UPDATE refold.routes SET failures = 2000")
    work(worker)
    [told] = store.routes(worker)
    assert (told.failures, told.retry_at is not None) == (2001, True)


def test_a_route_is_told_from_its_level_on_and_of_an_escalation(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver, least="page")
    number = open_one(worker, "anomaly", "series 7")
    work(worker)
    assert receiver.requests == []
    become(worker, number, "log_damage", "segment 1")
    work(worker)
    resolve(worker, "log_damage", "segment 1", by="a person")
    work(worker)
    assert types(receiver) == ["incident.escalated", "incident.resolved"]


def test_what_turns_out_to_be_urgent_is_told_at_once(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    # Drift is told after a while, because it is healed before.
    become(worker, open_one(worker, "drift", "daily"), "log_damage", "segment 1")
    work(worker)
    assert [(one.json["type"], one.json["data"]["kind"]) for one in receiver.requests] == [
        ("incident.opened", "log_damage")
    ]


@pytest.mark.parametrize("change", ["opens", "ends"])
def test_a_route_that_is_dropped_meanwhile_fails_no_incident(
    worker: Connection, connect: Callable[..., Connection], receiver: Receiver, route: Callable[..., None], change: str
) -> None:
    route(receiver)
    if change == "ends":
        open_one(worker)
    dropper = connect()
    with ThreadPoolExecutor(1) as pool:
        dropper.execute("SELECT")
        store.put(dropper, {})
        if change == "opens":
            other = pool.submit(open_one, worker)
        else:
            other = pool.submit(resolve, worker, "log_damage", "segment 1", by="a person")
        pid = worker.info.backend_pid
        waits = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
        wait_until(lambda: dropper.execute(waits, (pid,)).rowcount == 1)
        dropper.commit()
        other.result(timeout=10)
    assert store.latest(worker, 10) == []


def test_alertmanager_gets_open_incidents_again_before_they_would_end(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver, "alertmanager")
    open_one(worker)
    open_one(worker, subject="segment 2")
    work(worker)
    notices.send_again(worker, Compiler(None))
    resolve(worker, "log_damage", "segment 2", by="a person")
    work(worker)
    notices.send_again(worker, Compiler(None))
    assert {one.path for one in receiver.requests} == {"/hook/api/v2/alerts?tenant=7"}
    first, again, over, last = [one.json for one in receiver.requests]
    assert [one["labels"]["subject"] for one in first] == ["segment 1", "segment 2"]
    assert [one["labels"] for one in again] == [one["labels"] for one in first]
    now = datetime.now(UTC)
    assert all(now + timedelta(minutes=4) < datetime.fromisoformat(one["endsAt"]) for one in [*first, *again])
    assert [datetime.fromisoformat(one["endsAt"]) <= now for one in over] == [True]
    assert over[0]["labels"] == first[1]["labels"]
    assert [one["labels"]["subject"] for one in last] == ["segment 1"]


def test_a_heartbeat_is_called_and_told_nothing(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver, "heartbeat")
    open_one(worker)
    work(worker)
    notices.beat(worker, Compiler(None))
    assert types(receiver) == ["refold.heartbeat"]
    receiver.behaviour = answers(500)
    notices.beat(worker, Compiler(None))
    assert [one.failures for one in store.routes(worker)] == [1]


def test_a_receiver_that_hangs_holds_no_transaction_and_no_other_duty(
    worker: Connection, database_url: str, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver, timeout_s=20)
    receiver.behaviour = hangs
    open_one(worker)
    thread = DutyThread(database_url, None, NOTICES, frozen_after=60.0, name="refold notices")
    thread.begin()
    try:
        wait_until(lambda: bool(receiver.requests))
        open_transactions = worker.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'refold notices' AND xact_start IS NOT NULL"
            " AND datname = current_database()"
        ).fetchone()
        assert open_transactions == (0,)
        began = time.monotonic()
        resolve(worker, "log_damage", "segment 1", by="a person")
        assert time.monotonic() - began < 2.0
    finally:
        receiver.close_connections()
        thread.end()


def test_a_receiver_that_hung_before_is_tried_after_those_that_work(
    worker: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_SECRET", SECRET)
    given = {"kind": "webhook", "allow_private": True, "timeout_s": 0.5, "secrets": ["env:PAGER_SECRET"]}
    seen: list[int] = []

    def hanging(exchange: Exchange) -> None:
        seen.append(len(receiver.requests))
        hangs(exchange)

    with Receiver(hanging) as slow:
        routes = {"a": slow.url, "b": receiver.url}
        store.put(
            worker, {name: ("webhook", "ticket", json.dumps(given | {"url": url})) for name, url in routes.items()}
        )
        open_one(worker)
        work(worker)
        open_one(worker, subject="segment 2")
        worker.execute("UPDATE refold.routes SET retry_at = now()")
        work(worker)
    assert (seen, len(receiver.requests)) == ([0, 2], 2)


def test_secrets_and_addresses_that_are_secret_are_in_no_table(
    worker: Connection, receiver: Receiver, route: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER_URL", receiver.url.replace("tenant=7", "key=very-secret-key"))
    route(receiver, url="env:PAGER_URL")
    receiver.behaviour = answers(500, b"very-secret-key " + SECRET.encode())
    open_one(worker)
    work(worker)
    [told] = store.routes(worker)
    assert told.error is not None and "500" in told.error
    assert "very-secret-key" not in told.error + told.definition
    assert SECRET not in told.error + told.definition


def test_an_address_that_is_not_public_is_not_called(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver, allow_private=False)
    open_one(worker)
    work(worker)
    [told] = store.routes(worker)
    assert receiver.requests == [] and told.error is not None and "not public" in told.error


def test_a_dropped_route_takes_its_notices_along(
    worker: Connection, receiver: Receiver, route: Callable[..., None]
) -> None:
    route(receiver)
    open_one(worker)
    store.put(worker, {})
    work(worker)
    assert (store.latest(worker, 10), receiver.requests) == ([], [])


def test_an_observer_sees_notices_without_what_receivers_say(
    worker: Connection, receiver: Receiver, route: Callable[..., None], connect: Callable[..., Connection]
) -> None:
    route(receiver)
    open_one(worker)
    observer = connect()
    observer.execute("SET ROLE refold_observer")
    assert [one.definition for one in store.routes(observer, definitions=False)] == [""]
    assert [one.change for one in store.latest(observer, 5, errors=False)] == ["opened"]
    observer.rollback()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        observer.execute("SET ROLE refold_observer; SELECT definition FROM refold.routes")
