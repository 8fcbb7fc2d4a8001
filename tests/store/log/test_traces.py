"""Which trace appended an event: what the log's trigger keeps of a context, and what Python passes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from refold import append
from refold.service.duties import prune_statistics
from refold.store.builds.compiled import Compiler
from refold.tracing import sampled
from tests.support.otlp import Receiver, receiving, trace_id, traceparent
from tests.support.traced_application import application

Connection = psycopg.Connection[Any]

GOOD = traceparent(7, span=9)
IGNORED = [
    "",
    " ",
    "hello",
    traceparent(7, flags="00"),
    traceparent(7, flags="02"),
    traceparent(0),
    traceparent(7, span=0),
    "ff" + GOOD[2:],
    GOOD.upper().replace("1", "A"),
    GOOD[:-1],
    GOOD + "-",
    GOOD + "0",
    GOOD + " ",
    GOOD + "\n",
    "00-" + "é" * 32 + GOOD[35:],
    "01" + GOOD[2:] + "-" + "x" * 600,
    "x" * 1_000_000,
    GOOD.replace("-", "_"),
    "'; DROP TABLE refold.traces; --",
]
TAKEN = [GOOD, traceparent(7, span=9, flags="03"), "01" + GOOD[2:], "cc" + GOOD[2:] + "-more", "01" + GOOD[2:] + "-"]


def events(number: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"e{start + n}", "action": "a", "ts": n} for n in range(number)]


def rows(conn: Connection) -> list[tuple[Any, ...]]:
    """The traces: number of the trace, number of the span, events."""
    found = conn.execute("SELECT trace_id, span_id, events FROM refold.traces ORDER BY txid, position").fetchall()
    return [(trace.int, span, events) for trace, span, events in found]


def say(conn: Connection, context: str) -> None:
    conn.execute("SELECT set_config('refold.traceparent', %s, true)", (context,))


@pytest.mark.parametrize("context", IGNORED, ids=lambda context: context[:60])
def test_what_is_no_sampled_context_costs_no_event(producer: Connection, conn: Connection, context: str) -> None:
    with producer.transaction():
        say(producer, context)
        assert [one.answer.value for one in append(producer, events(1))] == ["accepted"]
    producer.commit()
    assert rows(conn) == []
    assert conn.execute("SELECT count(*) FROM refold.events").fetchone() == (1,)
    assert sampled(context) is None


@pytest.mark.parametrize("context", TAKEN)
def test_a_sampled_context_is_kept_also_of_a_later_version(
    producer: Connection, conn: Connection, context: str
) -> None:
    say(producer, context)
    append(producer, events(1))
    producer.commit()
    assert rows(conn) == [(7, 9, 1)]
    found = sampled(context)
    assert found is not None
    assert (found.trace_id, found.span_id) == (7, 9)


def test_a_span_id_may_have_its_highest_bit(producer: Connection, conn: Connection) -> None:
    say(producer, traceparent(7, span=2**64 - 2))
    append(producer, events(1))
    producer.commit()
    assert rows(conn) == [(7, -2, 1)]


def test_every_door_of_sql(producer: Connection, conn: Connection) -> None:
    for number, statement in enumerate(
        (
            "INSERT INTO refold.events (event_id, action, ts) VALUES ('i1', 'a', now()), ('i2', 'a', now())",
            'SELECT refold.append(\'[{"id": "s1", "action": "a", "ts": 0}]\')',
        ),
        start=1,
    ):
        say(producer, traceparent(number))
        producer.execute(statement.encode())
        producer.commit()
    say(producer, traceparent(3))
    with producer.cursor().copy("COPY refold.events (event_id, action, ts) FROM STDIN") as copy:
        copy.write("c1\ta\t2026-01-01\nc2\ta\t2026-01-01\nc3\ta\t2026-01-01\n")
    producer.commit()
    assert rows(conn) == [(1, 1, 2), (2, 1, 1), (3, 1, 3)]


def test_duplicates_are_no_events_of_the_trace(producer: Connection, conn: Connection) -> None:
    say(producer, traceparent(1))
    append(producer, events(1))
    producer.commit()
    say(producer, traceparent(2))
    assert [one.answer.value for one in append(producer, events(1))] == ["duplicate"]
    producer.commit()
    say(producer, traceparent(3))
    assert [one.answer.value for one in append(producer, events(2))] == ["duplicate", "accepted"]
    producer.commit()
    assert rows(conn) == [(1, 1, 1), (3, 1, 1)]


def test_the_number_of_events_is_exact_where_two_copies_are_fed_in_turn(
    producers: Callable[..., Connection], conn: Connection
) -> None:
    one, two = producers(), producers()
    say(one, traceparent(1))
    say(two, traceparent(2))
    with (
        one.cursor().copy("COPY refold.events (event_id, action, ts) FROM STDIN") as first,
        two.cursor().copy("COPY refold.events (event_id, action, ts) FROM STDIN") as second,
    ):
        for n in range(40):
            first.write("".join(f"a{n}.{m}\ta\t2026-01-01\n" for m in range(50)))
            second.write("".join(f"b{n}.{m}\ta\t2026-01-01\n" for m in range(100)))
    one.commit()
    two.commit()
    assert sorted(rows(conn)) == [(1, 1, 2000), (2, 1, 4000)]
    ranges = conn.execute("SELECT sum(position - first_position + 1) FROM refold.traces").fetchone()
    assert ranges is not None
    assert ranges[0] > 6000, "they were not fed in turn"


def test_producers_reach_the_table_only_by_the_trigger(producer: Connection, conn: Connection) -> None:
    for statement in (
        "SELECT * FROM refold.traces",
        "INSERT INTO refold.traces VALUES ('1', 1, 1, 1, gen_random_uuid(), 1)",
        "UPDATE refold.traces SET events = 0",
        "DELETE FROM refold.traces",
        "TRUNCATE refold.traces",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), producer.transaction():
            producer.execute(statement.encode())
    owned = conn.execute(
        "SELECT grantee, string_agg(privilege_type, ',' ORDER BY privilege_type)"
        " FROM information_schema.role_table_grants WHERE table_name = 'traces' AND grantee <> grantor"
        " GROUP BY grantee ORDER BY grantee"
    ).fetchall()
    assert owned == [("refold_observer", "SELECT"), ("refold_worker", "DELETE,SELECT")]


def test_a_pooled_session_that_was_set_by_set_keeps_the_context(producer: Connection, conn: Connection) -> None:
    """The fault that the docs warn of; SET LOCAL ends with the transaction."""
    producer.execute(f"SET refold.traceparent = '{traceparent(1)}'".encode())
    producer.commit()
    append(producer, events(1))
    producer.commit()
    assert rows(conn) == [(1, 1, 1)]
    producer.execute("RESET refold.traceparent")
    producer.commit()
    say(producer, traceparent(2))
    producer.commit()
    append(producer, events(1, 1))
    producer.commit()
    assert rows(conn) == [(1, 1, 1)]


def test_a_locked_or_missing_row_holds_up_nobody(
    producer: Connection, conn: Connection, connect: Callable[..., Connection]
) -> None:
    """The duty deletes rows: the INSERT of a new one waits for none of them."""
    say(producer, traceparent(1))
    append(producer, events(1))
    producer.commit()
    locker = connect()
    locker.execute("SELECT FROM refold.traces FOR UPDATE")
    locker.execute("DELETE FROM refold.traces")
    producer.execute("SET LOCAL lock_timeout = '1s'")
    say(producer, traceparent(2))
    append(producer, events(1, 1))
    producer.commit()
    locker.rollback()
    assert rows(conn) == [(1, 1, 1), (2, 1, 1)]


@pytest.mark.parametrize("harm", ["REVOKE ALL ON refold.traces FROM refold_owner", "DROP TABLE refold.traces"])
def test_a_table_that_a_restore_left_behind_costs_no_event(
    producer: Connection, admin: Connection, conn: Connection, harm: str
) -> None:
    admin.execute(harm.encode())
    admin.commit()
    say(producer, traceparent(1))
    assert [one.answer for one in append(producer, events(3))] == ["accepted"] * 3
    producer.commit()
    assert conn.execute("SELECT count(*) FROM refold.events").fetchone() == (3,)


def test_old_traces_go_and_those_of_a_clock_that_was_ahead(producer: Connection, admin: Connection) -> None:
    for number, days in enumerate((0, 6, 8, -6, -8), start=1):
        say(producer, traceparent(number))
        append(producer, events(1, number))
        producer.commit()
        admin.execute(
            "UPDATE refold.traces SET recorded_at = clock_timestamp() - make_interval(days => %s) WHERE trace_id = %s",
            (days, trace_id(number)),
        )
    admin.execute("SET ROLE refold_worker")
    prune_statistics.run(admin, Compiler(None))
    assert rows(admin) == [(1, 1, 1), (2, 1, 1), (4, 1, 1)]
    admin.execute("RESET ROLE")
    admin.execute("UPDATE refold.settings SET trace_days = 1")
    admin.execute("SET ROLE refold_worker")
    prune_statistics.run(admin, Compiler(None))
    assert rows(admin) == [(1, 1, 1)]


# Python


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.mark.parametrize("number", [1, 63, 64, 1000])
@pytest.mark.parametrize("optimistic", [True, False])
def test_an_append_is_a_span_below_the_current_one(
    producer: Connection, conn: Connection, receiver: Receiver, number: int, optimistic: bool
) -> None:
    with application(receiver) as tracer, tracer.start_as_current_span("checkout"):
        append(producer, events(number), optimistic=optimistic)
    # What follows in the same transaction is no part of it.
    append(producer, events(3, 5000))
    producer.commit()
    [span], [parent] = receiver.named("append events"), receiver.named("checkout")
    assert span.kind == "producer"
    assert (span.trace_id, span.parent) == (parent.trace_id, parent.span_id)
    assert span.attributes == {
        "messaging.system": "refold",
        "messaging.operation.name": "append",
        "messaging.operation.type": "send",
        "messaging.destination.name": "events",
        "messaging.batch.message_count": number,
    }
    [(trace, span_id, counted)] = rows(conn)
    assert (f"{trace:032x}", f"{span_id % 2**64:016x}", counted) == (span.trace_id, span.span_id, number)


def test_an_append_keeps_the_context_that_sql_has_set(
    producer: Connection, conn: Connection, receiver: Receiver
) -> None:
    say(producer, traceparent(1))
    with application(receiver) as tracer, tracer.start_as_current_span("checkout"):
        append(producer, events(1))
        append(producer, events(100, 10))
    append(producer, events(1, 500))
    producer.commit()
    assert [events for _, _, events in rows(conn)] == [1, 100, 1]
    assert [trace for trace, _, _ in rows(conn)][-1] == 1
    assert len({trace for trace, _, _ in rows(conn)}) == 2


def test_answers_are_counted_and_errors_are_named_without_their_text(producer: Connection, receiver: Receiver) -> None:
    append(producer, [{"id": "d", "action": "a", "ts": 0}, {"id": "c", "action": "a", "ts": 0}])
    producer.commit()
    given: list[dict[str, Any]] = [
        {"id": "d", "action": "a", "ts": 0},
        {"id": "c", "action": "b", "ts": 0},
        {"id": "i"},
        *events(1),
    ]
    with application(receiver) as tracer, tracer.start_as_current_span("checkout"):
        append(producer, given)
        producer.commit()
        producer.execute("SET LOCAL statement_timeout = '1ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            append(producer, events(20_000, 10), optimistic=False)
        producer.rollback()
    counted, failed = receiver.named("append events")
    assert {name: value for name, value in counted.attributes.items() if name.startswith("refold.")} == {
        "refold.duplicate": 1,
        "refold.conflict": 1,
        "refold.invalid": 1,
    }
    assert not counted.failed
    assert failed.failed
    assert failed.attributes["error.type"] == "57014"


def test_a_copy_that_is_refused_is_one_trace_still(producer: Connection, conn: Connection, receiver: Receiver) -> None:
    append(producer, events(1))
    producer.commit()
    with application(receiver) as tracer, tracer.start_as_current_span("checkout"):
        append(producer, events(200))
    append(producer, events(3, 5000))
    producer.commit()
    assert [events for _, _, events in rows(conn)] == [199]


def test_outside_a_trace_nothing_is_recorded(producer: Connection, conn: Connection, receiver: Receiver) -> None:
    with application(receiver):
        append(producer, events(2))
    producer.commit()
    assert receiver.spans == []
    assert rows(conn) == []


def test_roots_begin_traces_of_their_own(
    producer: Connection, conn: Connection, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refold.tracing.environment.ROOTS", True)
    with application(receiver):
        append(producer, events(2))
    producer.commit()
    [span] = receiver.named("append events")
    assert span.parent == ""
    assert [f"{trace:032x}" for trace, _, _ in rows(conn)] == [span.trace_id]


def test_a_retry_in_another_trace_is_a_duplicate(producer: Connection, receiver: Receiver) -> None:
    with application(receiver) as tracer:
        for _ in range(2):
            with tracer.start_as_current_span("checkout"):
                answers = [one.answer.value for one in append(producer, events(1))]
            producer.commit()
    assert answers == ["duplicate"]
