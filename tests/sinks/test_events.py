"""Sinks of grain `events`: each row of a stream once, in its order, and in the end the receiver has the stream."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from refold import append
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.release import release
from refold.model.sink.state import resumed
from refold.service.duties.sinks import run as run_duty
from refold.sinks import deliver as delivering
from refold.sinks import stream
from refold.sinks.audit import audit
from refold.sinks.deliver import Deliverer
from refold.sinks.deploy import collapse
from refold.store import outbox, sinks
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import find as letters
from tests.sinks.test_files import same, to_files
from tests.sinks.test_histories import Lying, again, attempt, replay, restore, retry, tamper
from tests.sinks.test_webhook_histories import LOST
from tests.support.delivering import (
    Connection,
    deliver,
    deploy_sink,
    differences,
    to_postgres,
    to_webhook,
    url_of,
)
from tests.support.receiving import Hook, Received
from tests.support.scratch import Scratch

FACTS = "SELECT event_id, user_id, action, metadata->>'n' AS n FROM events"
SOME = "SELECT event_id, user_id, action, metadata->>'n' AS n FROM events WHERE action <> 'b'"
TRANSFORM = """
import os

from pydantic import BaseModel
from refold import Event, transform

class Graded(BaseModel):
    of: str
    user_id: str | None
    n: str

@transform(reads="events")
def graded(event: Event) -> list[Graded]:
    n = event.metadata.get("n", 1) or ("REFOLD_TEST_MENDED" in os.environ)
    return [Graded(of=event.event_id, user_id=event.user_id, n=f"{10 // n} {at}") for at in range(2)]
"""


def of_events(text: str) -> str:
    return f'grain = "events"\n{text}'


def given(receiver: Hook) -> list[str]:
    """Return the ids of the events that were given, in order."""
    return [change["key"]["event_id"] for request in receiver.received for change in request.changes]


def in_order(scratch: Scratch, metric: str) -> list[str]:
    """Return the ids of the events of a stream, in its order."""
    table = sql.Identifier("refold_builds", scratch.build(metric).table_name)
    rows = scratch.worker.execute(
        sql.SQL("SELECT event_id FROM {} ORDER BY txid, position, ordinal").format(table)
    ).fetchall()
    return [event_id for (event_id,) in rows]


@pytest.mark.parametrize("metric", ["facts", "graded"])
def test_each_row_is_given_once_in_the_order_of_the_stream(
    scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    monkeypatch.setattr(stream.next_page, "__defaults__", (7,))
    scratch.deploy_one(metric, {"facts": FACTS, "graded": TRANSFORM}[metric])
    scratch.append(20, user_id="ann")
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", of_events(to_webhook(metric, receiver.url)))
    deliver(scratch.worker, scratch.folder, "copy")
    assert given(receiver) == in_order(scratch, metric)
    with psycopg.connect(scratch.url) as late:
        append(late, [{"id": "late", "action": "a", "ts": 0}])
        scratch.append(20, user_id="ben")
        scratch.drain()
        deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(20)
    scratch.drain()
    # Pages send no keys: the stream is the buffer.
    assert not outbox.waits(scratch.worker, sink.sink_id, 0)
    deliver(scratch.worker, scratch.folder, "copy")
    assert sorted(given(receiver)) == sorted(in_order(scratch, metric))
    assert any(one.startswith("late") for one in given(receiver))
    run_duty(scratch.worker, Compiler(scratch.folder))
    deliver(scratch.worker, scratch.folder, "copy")
    assert len(given(receiver)) == len(in_order(scratch, metric))


def test_a_dead_letter_is_given_when_it_is_released(
    scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy(graded=TRANSFORM)
    deploy_sink(scratch.worker, "copy", of_events(to_webhook("graded", receiver.url)))
    scratch.append(2)
    scratch.append(1, metadata={"n": 0})
    scratch.append(2)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert given(receiver) == [f"e{event}#{at}" for event in (0, 1, 3, 4) for at in (0, 1)]
    [letter] = letters(scratch.worker)
    monkeypatch.setenv("REFOLD_TEST_MENDED", "1")
    assert release(scratch.worker, Compiler(scratch.folder), letter).answer == "released"
    deliver(scratch.worker, scratch.folder, "copy")
    assert sorted(given(receiver)[8:]) == ["e2#0", "e2#1"]


def test_a_row_that_is_released_before_the_cursor_comes_is_given_once(
    scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy(graded=TRANSFORM)
    deploy_sink(scratch.worker, "copy", of_events(to_webhook("graded", receiver.url)))
    scratch.append(1)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(1, metadata={"n": 0})
    scratch.drain()
    [letter] = letters(scratch.worker)
    monkeypatch.setenv("REFOLD_TEST_MENDED", "1")
    assert release(scratch.worker, Compiler(scratch.folder), letter).answer == "released"
    deliver(scratch.worker, scratch.folder, "copy")
    assert given(receiver) == ["e0#0", "e0#1", "e1#0", "e1#1"]


def test_another_build_tells_a_webhook_no_old_row(scratch: Scratch, receiver: Hook) -> None:
    scratch.deploy(graded=TRANSFORM)
    sink = deploy_sink(scratch.worker, "copy", of_events(to_webhook("graded", receiver.url)))
    scratch.append(3)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.deploy(graded=TRANSFORM.replace("range(2)", "range(3)"))
    scratch.drain()
    for _ in range(2):
        deliver(scratch.worker, scratch.folder, "copy")
        run_duty(scratch.worker, Compiler(scratch.folder))
    assert len(given(receiver)) == 6
    scratch.append(1)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert given(receiver)[6:] == ["e3#0", "e3#1", "e3#2"]
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert (state.error, state.following) == (None, True)


@pytest.mark.parametrize("query", [FACTS, TRANSFORM])
def test_a_healed_row_is_given_again(scratch: Scratch, target: Connection, query: str) -> None:
    metric = "graded" if query == TRANSFORM else "facts"
    scratch.deploy_one(metric, query)
    scratch.append(9, user_id="ann")
    scratch.drain()
    deploy_sink(scratch.worker, "copy", of_events(to_postgres(metric, url_of(scratch, target))))
    deliver(scratch.worker, scratch.folder, "copy")
    tamper(scratch, metric)
    scratch.append(3, user_id="ben")
    scratch.drain()
    reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test")
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, metric, target) == []


@pytest.mark.parametrize("metric", ["facts", "graded"])
@pytest.mark.parametrize("seed", range(3))
def test_random_histories(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch, metric: str, seed: int
) -> None:
    chance = random.Random(f"{metric}{seed}")
    lying = Lying(chance, monkeypatch)
    if seed:
        monkeypatch.setattr(delivering, "MESSAGES", seed)
        monkeypatch.setattr(stream.next_page, "__defaults__", (seed * 2,))
    queries = [FACTS, SOME] if metric == "facts" else [TRANSFORM, TRANSFORM.replace("range(2)", "range(1)")]
    scratch.deploy_one(metric, queries[0])
    sink = deploy_sink(scratch.worker, "copy", of_events(to_postgres(metric, url_of(scratch, target))))
    steps: dict[str, Callable[[], object]] = {
        "events": lambda: scratch.append(
            chance.randint(1, 5), user_id=chance.choice(("ann", "ben", None)), action=chance.choice("ab")
        ),
        "page": scratch.drain,
        "tamper": lambda: tamper(scratch, metric),
        "heal": lambda: reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test"),
        "switch": lambda: scratch.deploy_one(metric, chance.choice(queries)),
        "collapse": lambda: collapse(scratch.worker, sink.sink_id),
        "replay": lambda: replay(scratch.worker, sink.sink_id),
        "duty": lambda: run_duty(scratch.worker, Compiler(scratch.folder)),
        "deliver": lambda: attempt(scratch),
        "restore": lambda: restore(scratch.worker, sink.sink_id),
    }
    for _ in range(60):
        steps[chance.choices(list(steps), [6, 6, 1, 1, 1, 0.5, 0.3, 0.5, 8, 0.3])[0]]()
    lying.honest = True
    scratch.drain()
    reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test")
    retry(scratch.worker, sink.sink_id)
    again(scratch.worker, sink.sink_id)
    deliver(scratch.worker, scratch.folder, "copy")
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert (state.error, state.following) == (None, True)
    assert differences(scratch.worker, metric, target) == []
    assert sinks.differing(scratch.worker, sink.sink_id, scratch.build(metric).build_id) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_histories_of_webhooks(
    scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(stream.next_page, "__defaults__", (seed * 2 + 1,))
    lies = [200, 200, 200, LOST, 500, 503, 429, 408, 413, 400, 422, 301, 404]

    def answer(request: Received, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]] | None:
        status = chance.choice(lies)
        if status == LOST:
            receiver.received.append(request)
            handler.connection.close()
            return None
        return status, {"retry-after": "0"}

    receiver.answer = answer
    scratch.deploy_one("facts", FACTS)
    sink = deploy_sink(scratch.worker, "copy", of_events(to_webhook("facts", receiver.url)))
    steps: dict[str, Callable[[], object]] = {
        "events": lambda: scratch.append(chance.randint(1, 5), user_id=chance.choice(("ann", "ben", None))),
        "page": scratch.drain,
        "tamper": lambda: tamper(scratch, "facts"),
        "heal": lambda: reconcile(scratch.worker, Compiler(scratch.folder), ["facts"], depth="deep", by="test"),
        "switch": lambda: scratch.deploy_one("facts", FACTS + f" /* {chance.random()} */"),
        "collapse": lambda: collapse(scratch.worker, sink.sink_id),
        "duty": lambda: run_duty(scratch.worker, Compiler(scratch.folder)),
        "deliver": lambda: attempt(scratch),
    }
    for _ in range(60):
        steps[chance.choices(list(steps), [6, 6, 1, 1, 1, 0.5, 0.5, 8])[0]]()
    receiver.status(200)
    scratch.drain()
    reconcile(scratch.worker, Compiler(scratch.folder), ["facts"], depth="deep", by="test")
    retry(scratch.worker, sink.sink_id)
    again(scratch.worker, sink.sink_id)
    deliver(scratch.worker, scratch.folder, "copy")
    rows = scratch.worker.execute("SELECT event_id, to_jsonb(m) FROM metrics.facts AS m").fetchall()
    table = {json.loads(key)["event_id"]: row for key, row in receiver.table().items()}
    assert table == dict(rows)


def test_files(scratch: Scratch, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    scratch.deploy_one("facts", FACTS)
    scratch.append(30, user_id="ann", metadata={"n": 1})
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", of_events(to_files("facts", lake, "csv")))
    deliver(scratch.worker, scratch.folder, "copy")
    same(scratch, "facts", lake)
    scratch.append(3, user_id=None)
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    same(scratch, "facts", lake)
    scratch.deploy_one("facts", SOME)
    scratch.append(3, action="b")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    same(scratch, "facts", lake)
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    found = audit(scratch.worker, deliverer, sink)
    deliverer.release()
    assert (found.wrong, found.skipped) == ([], None)


def test_an_audit(scratch: Scratch, target: Connection) -> None:
    scratch.deploy_one("facts", FACTS)
    scratch.append(30)
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", of_events(to_postgres("facts", url_of(scratch, target))))
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "auditor")
    try:
        found = audit(scratch.worker, deliverer, sink)
        assert (found.wrong, found.skipped, found.slices) == ([], None, 1)
        target.execute("DELETE FROM copy WHERE event_id = 'e3'")
        assert len(audit(scratch.worker, deliverer, sink).wrong) == 1
        while deliverer.turn(sink):
            pass
        assert differences(scratch.worker, "facts", target) == []
        assert audit(scratch.worker, deliverer, sink).wrong == []
    finally:
        deliverer.release()


def test_a_receiver_that_is_away_costs_no_messages(scratch: Scratch, receiver: Hook) -> None:
    scratch.deploy_one("facts", FACTS)
    sink = deploy_sink(scratch.worker, "copy", of_events(to_webhook("facts", receiver.url)))
    deliver(scratch.worker, scratch.folder, "copy")
    receiver.status(503)
    for _ in range(3):
        scratch.append(50)
        scratch.drain()
        deliver(scratch.worker, scratch.folder, "copy")
    assert outbox.backlog(scratch.worker, sink.sink_id, 0).messages == 0
    receiver.status(200)
    with scratch.worker.transaction():
        sinks.step(scratch.worker, sink.sink_id, lambda now, _: resumed(now))
    deliver(scratch.worker, scratch.folder, "copy")
    assert given(receiver) == in_order(scratch, "facts")


def turn(scratch: Scratch) -> None:
    """Take one turn of the sink."""
    deliverer = Deliverer(scratch.worker, Compiler(scratch.folder), "test")
    deliverer.turn(sinks.known(scratch.worker, "copy"))
    deliverer.turn(sinks.known(scratch.worker, "copy"))
    deliverer.release()


@pytest.mark.parametrize("healed", [False, True])
def test_a_collapse_in_the_middle_of_the_stream_loses_nothing(
    scratch: Scratch, target: Connection, monkeypatch: pytest.MonkeyPatch, healed: bool
) -> None:
    monkeypatch.setattr(stream.next_page, "__defaults__", (7,))
    scratch.deploy_one("facts", FACTS)
    sink = deploy_sink(scratch.worker, "copy", of_events(to_postgres("facts", url_of(scratch, target))))
    scratch.append(7, user_id="ann")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(20, user_id="ben")
    scratch.drain()
    if healed:
        tamper(scratch, "facts")
        reconcile(scratch.worker, Compiler(scratch.folder), ["facts"], depth="deep", by="test")
    monkeypatch.setattr(Deliverer, "_read_on" if healed else "_resync", lambda *_: False)
    turn(scratch)
    monkeypatch.undo()
    collapse(scratch.worker, sink.sink_id)
    deliver(scratch.worker, scratch.folder, "copy")
    assert differences(scratch.worker, "facts", target) == []


def test_a_build_with_rows_that_the_former_lacked(scratch: Scratch, target: Connection, receiver: Hook) -> None:
    scratch.deploy_one("facts", FACTS + " WHERE action = 'c'")
    scratch.append(3)
    scratch.drain()
    deploy_sink(scratch.worker, "copy", of_events(to_postgres("facts", url_of(scratch, target))))
    deploy_sink(scratch.worker, "once", of_events(to_webhook("facts", receiver.url)))
    for name in ("copy", "once"):
        deliver(scratch.worker, scratch.folder, name)
    scratch.deploy_one("facts", FACTS)
    scratch.drain()
    for _ in range(2):
        for name in ("copy", "once"):
            deliver(scratch.worker, scratch.folder, name)
        assert differences(scratch.worker, "facts", target) == []
        run_duty(scratch.worker, Compiler(scratch.folder))
    assert given(receiver) == []


def test_rows_that_wait_are_not_lost_messages(scratch: Scratch, receiver: Hook) -> None:
    scratch.deploy_one("facts", FACTS)
    sink = deploy_sink(scratch.worker, "copy", of_events(to_webhook("facts", receiver.url)))
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(3)
    scratch.drain()
    run_duty(scratch.worker, Compiler(scratch.folder))
    assert sinks.state(scratch.worker, sink.sink_id)[0].following
    deliver(scratch.worker, scratch.folder, "copy")
    assert given(receiver) == ["e0", "e1", "e2"]
