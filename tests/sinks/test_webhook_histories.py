"""A webhook that honours versions has what the metric says in the end, whatever it answers meanwhile."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from refold.engine.reconcile.reconcile import reconcile
from refold.sinks import deliver as delivering
from refold.sinks.deploy import collapse
from refold.store import sinks, undelivered
from refold.store.builds.compiled import Compiler
from tests.sinks.test_histories import again, attempt, other, retry, tamper
from tests.sinks.test_rows import METRICS
from tests.support.delivering import deliver, deploy_sink, to_webhook
from tests.support.receiving import Hook, Received
from tests.support.scratch import Scratch

LOST = 0
"""Stands for an answer that never arrives, though the rows did."""


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["merge", "vanishing"])
@pytest.mark.parametrize("seed", range(3))
def test_random_histories(
    scratch: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch, metric: str, seed: int
) -> None:
    chance = random.Random(f"{metric}{seed}")
    if seed:
        monkeypatch.setattr(delivering, "MESSAGES", seed)
    lies = [200, 200, 200, LOST, 500, 503, 429, 408, 413, 400, 422, 301, 404]

    def answer(request: Received, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]] | None:
        status = chance.choice(lies)
        if status == LOST:
            receiver.received.append(request)
            handler.connection.close()
            return None
        return status, {"retry-after": "0"}

    receiver.answer = answer
    text = METRICS[metric]
    scratch.deploy_one(metric, text)
    sink = deploy_sink(scratch.worker, "copy", to_webhook(metric, receiver.url))
    steps: dict[str, Callable[[], object]] = {
        "events": lambda: scratch.append(
            chance.randint(1, 5), user_id=chance.choice(("ann", "ben", None)), action=chance.choice("ab")
        ),
        "page": scratch.drain,
        "tamper": lambda: tamper(scratch, metric),
        "heal": lambda: reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test"),
        "switch": lambda: scratch.deploy_one(metric, other(text, chance)),
        "collapse": lambda: collapse(scratch.worker, sink.sink_id),
        "deliver": lambda: attempt(scratch),
    }
    for _ in range(60):
        steps[chance.choices(list(steps), [6, 6, 1, 1, 1, 1, 8])[0]]()
    receiver.status(200)
    scratch.drain()
    reconcile(scratch.worker, Compiler(scratch.folder), [metric], depth="deep", by="test")
    retry(scratch.worker, sink.sink_id)
    again(scratch.worker, sink.sink_id)
    deliver(scratch.worker, scratch.folder, "copy")
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert (state.error, state.following) == (None, True)
    rows = scratch.worker.execute(f"SELECT to_jsonb(m)::text FROM metrics.{metric} AS m".encode()).fetchall()
    assert sorted(map(_text, receiver.table().values())) == sorted(_text(json.loads(row)) for (row,) in rows)


def _text(row: object) -> str:
    return json.dumps(row, sort_keys=True)


@pytest.mark.parametrize("status", [401, 403, 404, 301])
def test_a_wrong_address_or_secret_gives_up_no_row(scratch: Scratch, receiver: Hook, status: int) -> None:
    scratch.deploy_one("merge", METRICS["merge"])
    scratch.append(3, user_id="ann")
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", to_webhook("merge", receiver.url))
    receiver.status(status)
    deliver(scratch.worker, scratch.folder, "copy")
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert (state.failures, state.status) == (1, str(status))
    assert state.retry_at is not None
    assert undelivered.waiting(scratch.worker, sink.sink_id) == 0
    receiver.status(200)
    again(scratch.worker, sink.sink_id)
    deliver(scratch.worker, scratch.folder, "copy")
    assert [row["events"] for row in receiver.table().values()] == [3]


def test_a_receiver_that_is_gone_stops_the_sink(scratch: Scratch, receiver: Hook) -> None:
    scratch.deploy_one("merge", METRICS["merge"])
    scratch.append(3, user_id="ann")
    scratch.drain()
    sink = deploy_sink(scratch.worker, "copy", to_webhook("merge", receiver.url))
    receiver.status(410)
    assert deliver(scratch.worker, scratch.folder, "copy") == 1
    state, _ = sinks.state(scratch.worker, sink.sink_id)
    assert (state.condition, state.status) == ("stopped", "410")


def test_one_row_that_is_refused_stops_no_other(scratch: Scratch, receiver: Hook) -> None:
    scratch.deploy_one("merge", METRICS["merge"])
    for user in ("ann", "ben", "cid", "dan", "eve"):
        scratch.append(2, user_id=user)
    scratch.drain()

    def answer(request: Received, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        bad = any(change["key"]["user_id"] == "cid" for change in request.changes)
        return (422 if bad else 200), {}

    receiver.answer = answer
    sink = deploy_sink(scratch.worker, "copy", to_webhook("merge", receiver.url))
    deliver(scratch.worker, scratch.folder, "copy")
    assert sorted(row["user_id"] for row in receiver.table().values()) == ["ann", "ben", "dan", "eve"]
    [one] = undelivered.every(scratch.worker, sink.sink_id)
    assert (one.key["user_id"], one.status) == ("cid", "422")
    # When it changes it is tried again, and so it is when somebody asks.
    receiver.status(200)
    scratch.append(1, user_id="cid")
    scratch.drain()
    deliver(scratch.worker, scratch.folder, "copy")
    assert undelivered.waiting(scratch.worker, sink.sink_id) == 0
    assert len(receiver.table()) == 5


def test_rows_larger_than_the_receiver_takes(scratch: Scratch, receiver: Hook) -> None:
    scratch.deploy_one("facts", METRICS["facts"])
    scratch.append(100)
    scratch.drain()

    def answer(request: Received, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        return (413 if len(request.changes) > 7 else 200), {}

    receiver.answer = answer
    sink = deploy_sink(scratch.worker, "copy", to_webhook("facts", receiver.url))
    deliver(scratch.worker, scratch.folder, "copy")
    assert len(receiver.table()) == 100
    assert sinks.state(scratch.worker, sink.sink_id)[0].batch <= 7
