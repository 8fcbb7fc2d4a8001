"""Traces from end to end: what workers, which may be killed, export to a real receiver of OTLP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from refold import append
from refold.postgres.failpoints import PAGE_POINTS
from refold.store.builds.build import live_builds
from tests.support.law import worker_connection
from tests.support.live import SHOP, wrong
from tests.support.otlp import Mode, Received, Receiver, receiving, trace_id, traceparent
from tests.support.traced_application import application
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

METRICS = {"daily", "purchases", "totals", "paths", "graded", "grades", "grade_paths"}
STOP_S = 5.0
"""Seconds in which a worker ends whose receiver hangs: two for the spans, and as many as it takes without."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@contextmanager
def worker(url: str, receiver: Receiver | None, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable, "-m", "refold", "worker", "--database-url", url, "--projections", str(SHOP), *options,
    ]  # fmt: skip
    given = os.environ | ({} if receiver is None else receiver.environment) | environment
    with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def drained(url: str, receiver: Receiver | None, *options: str, **environment: str) -> str:
    with worker(url, receiver, "--drain", *options, **environment) as process:
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    return told


def purchase(number: int, **fields: Any) -> dict[str, Any]:
    metadata = {"amount": 10 * number}
    return {"id": f"p{number}", "user_id": f"u{number % 5}", "action": "purchase", "ts": number, "metadata": metadata}


def sampled_purchases(url: str, *numbers: int) -> None:
    """Appends purchases, each in a transaction and a trace of its own."""
    with psycopg.connect(url, autocommit=True) as conn:
        for number in numbers:
            with conn.transaction():
                conn.execute("SELECT set_config('refold.traceparent', %s, true)", (traceparent(number),))
                append(conn, [purchase(number)])


def applied(receiver: Receiver) -> list[Received]:
    """The spans of events."""
    return [span for span in receiver.spans if span.name.startswith("apply ") and span.parent]


def pages(receiver: Receiver) -> list[Received]:
    return [span for span in receiver.spans if span.name.startswith("apply ") and not span.parent]


@pytest.mark.live("shop")
def test_the_trace_of_one_event_has_every_metric(database_url: str, receiver: Receiver) -> None:
    with (
        psycopg.connect(database_url) as conn,
        application(receiver) as tracer,
        tracer.start_as_current_span("checkout"),
    ):
        append(conn, [purchase(3)])
    with psycopg.connect(database_url) as conn:
        append(conn, [purchase(number) for number in range(10, 30)])
    before = time.time_ns()
    drained(database_url, receiver)

    [produced], [caller] = receiver.named("append events"), receiver.named("checkout")
    trace = receiver.of(caller.trace_id)
    assert produced in trace
    consumed = [span for span in trace if span.kind == "consumer"]
    assert Counter(span.name for span in consumed) == {f"apply {name}": 1 for name in METRICS}
    by_id = {span.span_id: span for span in pages(receiver)}
    for span in consumed:
        assert span.parent == produced.span_id
        assert span.service == "refold"
        assert span.events == 1
        [(_, linked)] = span.links
        page = by_id[linked]
        assert page.name == span.name
        assert page.links == ((produced.trace_id, produced.span_id),)
        assert page.parent == ""
        assert page.events == 21
        assert before <= page.start_ns <= page.end_ns
        assert (page.start_ns, page.end_ns) == (span.start_ns, span.end_ns)
        # Nothing of an event, and no text.
        assert set(span.attributes) == set(page.attributes) == {
            "messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name",
            "messaging.consumer.group.name", "messaging.batch.message_count", "refold.upkeep", "refold.build",
        }  # fmt: skip
    streams = {span.name: span.attributes["messaging.destination.name"] for span in consumed}
    assert streams["apply totals"] == "purchases"
    assert streams["apply daily"] == "events"
    assert len(receiver.spans) == 2 + 2 * len(METRICS)


@pytest.mark.slow
@pytest.mark.live("shop")
@pytest.mark.parametrize("point", PAGE_POINTS)
def test_spans_of_workers_that_are_killed_are_lost_and_never_doubled(
    database_url: str, receiver: Receiver, point: str
) -> None:
    numbers = range(1, 41)
    sampled_purchases(database_url, *numbers[:20])
    for at in (1, 4):
        with worker(database_url, receiver, "--drain", REFOLD_CRASH_AT=f"{point}:{at}") as process:
            process.wait(60)
        assert process.returncode == -signal.SIGKILL
        sampled_purchases(database_url, *(numbers[20:30] if at == 1 else numbers[30:]))
    survived = {(span.trace_id, span.name) for span in applied(receiver)}
    with worker(database_url, receiver, "--drain") as one, worker(database_url, receiver, "--drain") as two:
        assert one.wait(60) == two.wait(60) == 0
    assert wrong(database_url) == {}

    counted = Counter((span.trace_id, span.name) for span in applied(receiver))
    assert set(counted.values()) == {1}, "an event has two spans of one metric"
    assert survived <= set(counted)
    with worker_connection(database_url) as conn:
        for build in live_builds(conn):
            name = f"apply {build.projection}"
            told = sum(page.events for page in pages(receiver) if page.name == name)
            assert told <= build.events_applied, "a span of a page that was rolled back"
            # Lost are at most those that the killed workers had applied.
            assert all(counted[trace_id(number), name] == 1 for number in numbers[30:])
    every = {(trace_id(number), f"apply {name}") for number in numbers for name in METRICS}
    assert set(counted) <= every
    assert len(every - set(counted)) < len(every) / 2


@pytest.mark.slow
@pytest.mark.live("shop")
def test_two_workers_give_each_event_one_span_a_metric(database_url: str, receiver: Receiver) -> None:
    with worker(database_url, receiver, "--processes", "2", "--poll", "0.05") as process:
        for start in range(1, 61, 6):
            sampled_purchases(database_url, *range(start, start + 6))
        wait_until(lambda: wrong(database_url) == {}, deadline_s=60)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0, told
    counted = Counter((span.trace_id, span.name) for span in applied(receiver))
    assert counted == {(trace_id(number), f"apply {name}"): 1 for number in range(1, 61) for name in METRICS}


@pytest.mark.slow
@pytest.mark.live("shop")
def test_off_nobody_reads_traces_and_nothing_is_sent(database_url: str, receiver: Receiver, conn: Connection) -> None:
    sampled_purchases(database_url, 1, 2)
    conn.execute("SELECT pg_stat_reset()")
    conn.commit()
    off = {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}
    for environment in off:
        drained(database_url, receiver, **environment)
        sampled_purchases(database_url, 3 + off.index(environment))
    drained(database_url, None)
    assert receiver.requests == 0
    read = conn.execute("SELECT seq_scan + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'traces'")
    assert read.fetchone() == (0,)
    assert wrong(database_url) == {}


@pytest.mark.slow
@pytest.mark.live("shop")
@pytest.mark.parametrize("mode", ["fails", "hangs"])
def test_a_receiver_that_fails_or_hangs_costs_a_worker_two_seconds_at_its_end(
    database_url: str, receiver: Receiver, mode: Mode
) -> None:
    sampled_purchases(database_url, *range(1, 10))
    started = time.monotonic()
    drained(database_url, receiver)
    answered = time.monotonic() - started
    receiver.mode = mode
    sampled_purchases(database_url, *range(10, 20))
    started = time.monotonic()
    told = drained(database_url, receiver)
    # As long again, for what else the machine does.
    assert time.monotonic() - started < 2 * answered + STOP_S
    assert receiver.requests > 0
    assert wrong(database_url) == {}
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.live("shop")
def test_nobody_listens(database_url: str) -> None:
    sampled_purchases(database_url, *range(1, 10))
    told = drained(database_url, None, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY="50")
    assert wrong(database_url) == {}
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.live("shop")
@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "nosuch"},
        {"OTEL_TRACES_SAMPLER": "nosuch"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "much"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "many"},
        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "0"},
        {"REFOLD_TRACE_SLOW": "slow"},
    ],
    ids=str,
)
def test_wrong_variables_stop_no_worker(database_url: str, receiver: Receiver, environment: dict[str, str]) -> None:
    sampled_purchases(database_url, 1)
    drained(database_url, receiver, **environment)
    assert wrong(database_url) == {}


@pytest.mark.live("shop")
def test_names_and_resources_of_the_environment(database_url: str, receiver: Receiver) -> None:
    sampled_purchases(database_url, 1)
    drained(database_url, receiver, OTEL_SERVICE_NAME="metrics")
    assert {span.service for span in receiver.spans} == {"metrics"}
    sampled_purchases(database_url, 2)
    drained(database_url, receiver, OTEL_RESOURCE_ATTRIBUTES="service.name=other,team=data")
    assert {span.service for span in receiver.of(trace_id(2))} == {"other"}
