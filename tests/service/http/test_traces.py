"""The context of a request, or of each CloudEvent, through the door into the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.model.event.source_event import SourceEvent
from refold.store.log.group import Offer, append_bulk, append_group, by_trace
from tests.support.door import Served
from tests.support.otlp import Receiver, receiving, trace_id, traceparent
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def traced(database_url: str, tmp_path: Path, receiver: Receiver) -> Iterator[Served]:
    with Served(database_url, tmp_path / "serve.log", environment=receiver.environment) as served:
        yield served


def event(number: int) -> dict[str, Any]:
    return {"id": f"e{number}", "action": "a", "ts": number}


def cloud_event(number: int, **extensions: str) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"c{number}", "source": "/s", "type": "a", "time": "2026-03-02T08:00:00Z",
        **extensions,
    }  # fmt: skip


def rows(conn: Connection) -> dict[str, tuple[str, int]]:
    """The spans that appended events, and how many, by trace."""
    found = conn.execute("SELECT trace_id, span_id, events FROM refold.traces").fetchall()
    conn.commit()
    return {f"{trace.int:032x}": (f"{span % 2**64:016x}", events) for trace, span, events in found}


def test_a_request_is_the_parent_of_its_append(traced: Served, conn: Connection, receiver: Receiver) -> None:
    assert traced.post(event(1), traceparent=traceparent(1, span=5)).status == 201
    assert traced.post([event(2), event(3)], traceparent=traceparent(2)).status == 200
    lines = b"".join(json.dumps(event(n)).encode() + b"\n" for n in range(10, 110))
    assert traced.post(lines, as_="application/x-ndjson", traceparent=traceparent(3)).status == 200
    assert traced.post(event(4)).status == 201
    assert traced.post(event(5), traceparent=traceparent(5, flags="00")).status == 201
    assert traced.post(event(6), traceparent="x" * 3000).status == 201
    assert traced.post(event(7), traceparent=traceparent(0)).status == 201
    spans = wait_until(lambda: receiver.spans if len(receiver.spans) == 3 else [])
    assert {span.trace_id: (span.span_id, span.events) for span in spans} == rows(conn)
    assert {span.trace_id: span.parent for span in spans} == {
        trace_id(1): f"{5:016x}", trace_id(2): f"{1:016x}", trace_id(3): f"{1:016x}"
    }  # fmt: skip
    assert {span.name for span in spans} == {"append events"}


def test_cloudevents_have_contexts_of_their_own(traced: Served, conn: Connection) -> None:
    batch = [
        cloud_event(1, traceparent=traceparent(1)),
        cloud_event(2),
        cloud_event(3, traceparent=traceparent(1)),
        cloud_event(4, traceparent=traceparent(2)),
        cloud_event(5, traceparent="nonsense"),
    ]
    reply = traced.post(
        batch, as_="application/cloudevents-batch+json", traceparent=traceparent(9), Prefer="return=representation"
    )
    assert [one["id"] for one in reply.body["events"]] == [f"/s c{n}" for n in range(1, 6)]
    one = cloud_event(6, traceparent=traceparent(3))
    assert traced.post(one, as_="application/cloudevents+json").status == 201
    binary = {f"ce-{name}": value for name, value in cloud_event(7, traceparent=traceparent(4)).items()}
    assert traced.post(b"", as_="", **binary).status == 201
    assert {trace: events for trace, (_, events) in rows(conn).items()} == {
        trace_id(1): 2, trace_id(2): 1, trace_id(9): 1, trace_id(3): 1, trace_id(4): 1
    }  # fmt: skip
    # As before: an extension attribute is a part of the event.
    kept = conn.execute("SELECT metadata->>'traceparent' FROM refold.events WHERE event_id = '/s c1'").fetchone()
    assert kept == (traceparent(1),)


def test_many_at_once_and_refused_ones(traced: Served, conn: Connection, receiver: Receiver) -> None:
    assert traced.post(event(1)).status == 201
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: traced.post(event(n), traceparent=traceparent(n)).status, range(1, 41)))
    assert sorted(answers) == [200] + [201] * 39
    assert traced.post({**event(1), "action": "b"}, traceparent=traceparent(99)).status == 409
    spans = wait_until(lambda: receiver.spans if len(receiver.spans) == 41 else [])
    assert set(rows(conn)) == {trace_id(n) for n in range(2, 41)}
    told = {span.trace_id: span.attributes for span in spans}
    assert told[trace_id(1)]["refold.duplicate"] == 1
    assert told[trace_id(99)]["refold.conflict"] == 1


def test_without_traces_contexts_are_not_read(door: Served, conn: Connection) -> None:
    assert door.post(event(1), traceparent=traceparent(1)).status == 201
    one = cloud_event(6, traceparent=traceparent(3))
    assert door.post(one, as_="application/cloudevents+json").status == 201
    assert rows(conn) == {}


# Groups


def offer(event_id: str, trace: int = 0, action: str = "a") -> Offer:
    context = traceparent(trace) if trace else ""
    return Offer(SourceEvent(id=event_id, action=action, ts=datetime.now(UTC)), "t", 1, traceparent=context)


@pytest.mark.parametrize("append", [append_group, append_bulk])
def test_a_group_of_several_traces(conn: Connection, producer: Connection, append: Any) -> None:
    producer.autocommit = True
    offers = [offer("a", 1), offer("b"), offer("c", 2), offer("d", 1), Offer(None, "t", 5, "x", "no event", "raw")]
    receipts = append(producer, offers)
    assert [(one.event_id, one.answer.value) for one in receipts] == [
        ("a", "accepted"), ("b", "accepted"), ("c", "accepted"), ("d", "accepted"), ("x", "invalid")
    ]  # fmt: skip
    assert {trace: events for trace, (_, events) in rows(conn).items()} == {trace_id(1): 2, trace_id(2): 1}
    assert conn.execute("SELECT source, line, raw FROM refold.rejected").fetchall() == [("t", 5, "raw")]
    # The session is as it was.
    assert producer.execute("SELECT current_setting('refold.traceparent', true)").fetchone() in [(None,), ("",)]


@pytest.mark.parametrize("append", [append_group, append_bulk])
def test_of_two_with_one_id_the_first_is_stored(conn: Connection, producer: Connection, append: Any) -> None:
    producer.autocommit = True
    offers = [offer("a", 1), offer("x", 2, "first"), offer("x", 1, "second"), offer("b", 2)]
    assert [one.answer.value for one in append(producer, offers)] == ["accepted", "accepted", "conflict", "accepted"]
    assert conn.execute("SELECT action FROM refold.events WHERE event_id = 'x'").fetchall() == [("first",)]


def test_a_group_that_fails_is_rolled_back_as_a_whole(conn: Connection, producer: Connection) -> None:
    producer.autocommit = True
    bad = offer("bad", 2)
    assert bad.event is not None
    object.__setattr__(bad.event, "action", "")
    with pytest.raises(psycopg.errors.CheckViolation):
        append_group(producer, [offer("a", 1), bad, offer("c")])
    assert conn.execute("SELECT count(*) FROM refold.events").fetchone() == (0,)
    assert [one.answer.value for one in append_group(producer, [offer("a", 1), offer("c")])] == ["accepted"] * 2


def test_parts_of_a_group() -> None:
    one, two = traceparent(1), traceparent(2)
    assert by_trace([]) == [("", [])]
    assert by_trace([offer("a"), offer("b")]) == [("", [0, 1])]
    assert by_trace([offer("a", 1), offer("b", 2), offer("c", 1)]) == [(one, [0, 2]), (two, [1])]
    assert by_trace([offer("a", 1), offer("b", 2), offer("a", 1)]) == [(one, [0]), (two, [1]), (one, [2])]
