"""Which spans a page makes: exactly for the rows that it applied, and only once it is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from opentelemetry import trace

from refold import append, tracing
from refold.engine.apply import page as pages
from refold.engine.apply.page import apply_next_page
from refold.engine.reconcile.release import release
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import find
from tests.sinks.test_events import TRANSFORM
from tests.support.otlp import Received, Receiver, receiving, trace_id, traceparent
from tests.support.scratch import Scratch
from tests.support.traced_application import application

Connection = psycopg.Connection[Any]

DAILY = "SELECT (ts AT TIME ZONE 'UTC')::date AS day, count(*) AS events FROM events GROUP BY day"
WAS_A = "SELECT event_id, user_id, ts, action FROM events WHERE action = 'a'"
OF_A = "SELECT user_id, count(*) AS events FROM was_a GROUP BY user_id"
SUMS = "SELECT action, sum((metadata->>'amount')::numeric) AS amount FROM events GROUP BY action"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver, and this process traces like a worker."""
    monkeypatch.setattr(tracing.environment, "ON", True)
    with receiving() as found, application(found):
        yield found


def say(conn: Connection, number: int) -> None:
    conn.execute("SELECT set_config('refold.traceparent', %s, true)", (traceparent(number),))


def traced(scratch: Scratch, number: int, events: int = 1, **fields: Any) -> None:
    with psycopg.connect(scratch.url) as conn:
        say(conn, number)
        append(conn, [{"id": f"t{number}.{n}", "action": "a", "ts": n, **fields} for n in range(events)])


def page(scratch: Scratch, name: str, limit: int = 10_000) -> int:
    build = scratch.build(name)
    applied = apply_next_page(scratch.worker, Compiler(scratch.folder).of(scratch.worker, build), limit)
    assert applied is not None
    return applied.events


def of_events(receiver: Receiver, number: int, name: str = "apply daily") -> list[Received]:
    return [span for span in receiver.of(trace_id(number)) if span.name == name]


def test_a_page_without_a_sampled_event_makes_no_span(scratch: Scratch, receiver: Receiver) -> None:
    scratch.deploy_one("daily", DAILY)
    receiver.spans.clear()
    scratch.append(50)
    assert page(scratch, "daily") == 50
    assert receiver.spans == []


@pytest.mark.parametrize("setting", ["ALL", "SLOW_S"])
def test_all_pages_or_slow_ones_have_spans_if_asked(
    scratch: Scratch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    scratch.deploy_one("daily", DAILY)
    receiver.spans.clear()
    monkeypatch.setattr(tracing.environment, setting, True if setting == "ALL" else 0.0)
    scratch.append(50)
    page(scratch, "daily")
    [span] = receiver.spans
    assert (span.name, span.events, span.links) == ("apply daily", 50, ())


def test_a_statement_that_pages_split_is_counted_in_each(scratch: Scratch, receiver: Receiver) -> None:
    scratch.deploy_one("daily", DAILY)
    scratch.append(4)
    traced(scratch, 1, 25)
    traced(scratch, 2)
    assert [page(scratch, "daily", 10) for _ in range(3)] == [10, 10, 10]
    assert [span.events for span in of_events(receiver, 1)] == [6, 10, 9]
    assert [span.events for span in of_events(receiver, 2)] == [1]


def test_a_reader_of_a_stream_counts_the_rows_of_the_stream(scratch: Scratch, receiver: Receiver) -> None:
    scratch.deploy(was_a=WAS_A, of_a=OF_A)
    traced(scratch, 1, 5)
    traced(scratch, 2, 5, action="b")
    with psycopg.connect(scratch.url) as conn:
        say(conn, 3)
        append(conn, [{"id": f"m{n}", "action": "ab"[n % 2], "ts": n} for n in range(9)])
    assert page(scratch, "was_a") == 19
    assert [page(scratch, "of_a", 4) for _ in range(3)] == [4, 4, 2]
    assert [span.events for span in of_events(receiver, 1, "apply of_a")] == [4, 1]
    # The stream has no row of them, so its reader took none.
    assert of_events(receiver, 2, "apply of_a") == []
    assert [span.events for span in of_events(receiver, 2, "apply was_a")] == [5]
    assert [span.events for span in of_events(receiver, 3, "apply of_a")] == [3, 2]


def test_what_commits_while_the_page_runs_is_not_linked(
    scratch: Scratch, receiver: Receiver, connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction was open when the target was taken, and its rows precede the page's last."""
    scratch.deploy_one("daily", DAILY)
    late = connect()
    say(late, 1)
    append(late, [{"id": "late", "action": "a", "ts": 0}])
    traced(scratch, 2)
    passed: list[str] = []

    def commit(name: str) -> None:
        passed.append(name)
        if name == "looked":
            late.commit()

    monkeypatch.setattr(pages, "failpoint", commit)
    assert page(scratch, "daily") == 1
    assert "looked" in passed
    [span] = [span for span in receiver.named("apply daily") if not span.parent and span.links]
    assert [linked for linked, _ in span.links] == [trace_id(2)]
    assert of_events(receiver, 1) == []
    assert page(scratch, "daily") == 1
    assert [span.events for span in of_events(receiver, 1)] == [1]
    assert [span.events for span in of_events(receiver, 2)] == [1]


def test_a_page_that_is_rolled_back_leaves_only_that_it_failed(
    scratch: Scratch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy_one("daily", DAILY)
    receiver.spans.clear()
    traced(scratch, 1)

    def fail(name: str) -> None:
        if name == "cursor":
            raise RuntimeError("a secret of ann@example.org")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(pages, "failpoint", fail)
        page(scratch, "daily")
    [span] = receiver.spans
    assert span.failed
    assert (span.name, span.links, span.parent, span.events) == ("apply daily", (), "", 0)
    assert span.attributes["error.type"] == "RuntimeError"
    assert "ann" not in str(span)
    page(scratch, "daily")
    assert len(of_events(receiver, 1)) == 1


def test_a_dead_letter_fails_in_its_own_trace_and_so_does_a_release_in_vain(
    scratch: Scratch, receiver: Receiver
) -> None:
    scratch.deploy_one("sums", SUMS)
    receiver.spans.clear()
    traced(scratch, 1, metadata={"amount": "1"})
    traced(scratch, 2, metadata={"amount": "ann@example.org"})
    traced(scratch, 3, metadata={"amount": "3"})
    scratch.drain()
    failed = {number: of_events(receiver, number, "apply sums")[0].failed for number in (1, 2, 3)}
    assert failed == {1: False, 2: True, 3: False}
    [culprit] = of_events(receiver, 2, "apply sums")
    assert culprit.attributes["error.type"] == "22P02"
    assert culprit.attributes["refold.dead_letters"] == 1
    [one] = [span for span in receiver.named("apply sums") if not span.parent]
    assert one.attributes["refold.dead_letters"] == 1
    assert not one.failed
    assert "ann@" not in str(receiver.spans)

    [letter] = find(scratch.worker)
    assert release(scratch.worker, Compiler(scratch.folder), letter).answer == "failed"
    [again] = receiver.named("release sums")
    assert again.failed
    assert again.links == ((trace_id(2), f"{1:016x}"),)


def test_a_release_is_part_of_the_events_trace(
    scratch: Scratch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy(graded=TRANSFORM)
    traced(scratch, 1, metadata={"n": 0})
    scratch.drain()
    [letter] = find(scratch.worker)
    receiver.spans.clear()
    monkeypatch.setenv("REFOLD_TEST_MENDED", "1")
    assert release(scratch.worker, Compiler(scratch.folder), letter).answer == "released"
    one, own = sorted(receiver.spans, key=lambda span: span.parent)
    assert one.name == own.name == "release graded"
    assert one.kind == own.kind == "consumer"
    assert one.links == ((trace_id(1), f"{1:016x}"),)
    assert (own.trace_id, own.parent, own.links) == (trace_id(1), f"{1:016x}", ((one.trace_id, one.span_id),))


def test_more_traces_than_a_span_can_link_to(
    scratch: Scratch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy_one("daily", DAILY)
    with psycopg.connect(scratch.url, autocommit=True) as conn:
        for number in range(1, 151):
            with conn.transaction():
                say(conn, number)
                append(conn, [{"id": f"t{number}", "action": "a", "ts": number}])
    page(scratch, "daily")
    [span] = [span for span in receiver.named("apply daily") if span.links and not span.parent]
    assert len(span.links) == tracing.LINKS
    assert all(len(of_events(receiver, number)) == 1 for number in range(1, 151))


def test_a_clock_that_is_set_back_makes_no_span_end_before_it_begins(
    scratch: Scratch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.deploy_one("daily", DAILY)
    traced(scratch, 1)
    hours = iter(range(1000))
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - next(hours) * 3600 * 10**9)
    page(scratch, "daily")
    [span] = of_events(receiver, 1)
    assert 0 < span.end_ns - span.start_ns < 60 * 10**9


def test_a_build_beside_the_live_one_has_no_spans_in_the_traces_of_events(scratch: Scratch, receiver: Receiver) -> None:
    scratch.deploy_one("daily", DAILY)
    scratch.deploy(live=False, daily=DAILY.replace("count(*) AS events", "count(*) AS number"))
    traced(scratch, 1)
    scratch.drain()
    spans = receiver.named("apply daily")
    assert len([span for span in spans if span.parent]) == 1
    assert len([span for span in spans if not span.parent and span.links]) == 2


def test_a_first_load_is_a_span_and_none_of_its_events_has_one(scratch: Scratch, receiver: Receiver) -> None:
    traced(scratch, 1, 20)
    scratch.deploy_one("daily", DAILY)
    [span] = receiver.named("load daily")
    assert span.kind == "internal"
    assert span.attributes["refold.events"] == 20
    assert receiver.of(trace_id(1)) == []


def test_the_current_span_of_a_program_is_left_as_it_was(scratch: Scratch, receiver: Receiver) -> None:
    scratch.deploy_one("daily", DAILY)
    traced(scratch, 1)
    page(scratch, "daily")
    assert trace.get_current_span() is trace.INVALID_SPAN
