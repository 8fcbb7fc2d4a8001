"""`append(conn, events)`: an answer for each event, in the caller's own transaction."""

from collections import ChainMap
from collections.abc import Callable
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from refold import Answer, SourceEvent, append
from refold.store.log.append import BULK
from tests.support.making import events, ids, rejected, stored

Connection = psycopg.Connection[Any]
SIZES = pytest.mark.parametrize("size", [3, BULK + 1], ids=str)
"""Below BULK events go as JSON, from there on as COPY or as arrays."""


def answers(receipts: list[Any]) -> set[str]:
    return {str(receipt.answer) for receipt in receipts}


@SIZES
def test_each_event_is_answered_in_order(producer: Connection, admin: Connection, size: int) -> None:
    new = events(size)
    assert [(r.event_id, r.answer) for r in append(producer, new)] == [(e["id"], Answer.accepted) for e in new]
    more = events(size + 2)
    receipts = append(producer, more)
    assert [r.event_id for r in receipts] == [e["id"] for e in more]
    assert [r.answer for r in receipts] == [Answer.duplicate] * size + [Answer.accepted] * 2
    assert [r.reason for r in receipts] == [None] * (size + 2)
    producer.commit()
    assert stored(admin) == ids(more)


@pytest.mark.parametrize("repeated", [None, 5, 1500, 2400], ids=str)
def test_all_of_a_large_batch_is_answered_wherever_its_copy_stops(
    producer: Connection, admin: Connection, repeated: int | None
) -> None:
    """Events are checked while the server stores those before them."""
    offered = events(2500)
    offered[2000] = {"id": "broken", "action": "view"}
    if repeated is not None:
        offered[repeated] = offered[repeated - 1]
    receipts = append(producer, offered)
    assert [receipt.event_id for receipt in receipts] == [event["id"] for event in offered]
    expected = ["accepted"] * 2500
    expected[2000] = "invalid"
    if repeated is not None:
        expected[repeated] = "duplicate"
    assert [str(receipt.answer) for receipt in receipts] == expected
    producer.commit()
    wanted = [event["id"] for event, answer in zip(offered, expected, strict=True) if answer == "accepted"]
    assert sorted(stored(admin)) == sorted(wanted)
    order = admin.execute("SELECT event_id FROM refold.events ORDER BY position").fetchall()
    assert [event_id for (event_id,) in order] == wanted


def test_what_cannot_be_looked_at_leaves_the_transaction_as_it_was(producer: Connection, admin: Connection) -> None:
    class Strange(dict[str, Any]):
        def keys(self) -> Any:
            raise RuntimeError("strange")

        __iter__ = keys

    offered: list[Any] = [*events(1500), Strange(id="x")]
    append(producer, events(1, "before-"))
    with pytest.raises(RuntimeError, match="strange"):
        append(producer, offered)
    append(producer, events(1, "after-"))
    producer.commit()
    assert stored(admin) == ids(events(1, "after-") + events(1, "before-"))


@SIZES
def test_every_answer_at_once(producer: Connection, admin: Connection, size: int) -> None:
    append(producer, [{"id": "known", "action": "view", "ts": 0}, {"id": "other", "action": "view", "ts": 0}])
    offered: list[Any] = [
        {"id": "broken", "action": "view"},
        {"id": "known", "action": "view", "ts": "1970-01-01T00:00:00Z"},
        {"id": "other", "action": "buy", "ts": 0},
        SourceEvent(id="fresh", action="view", ts=datetime(1970, 1, 1, tzinfo=UTC)),
        {"ts": 0},
        {"id": "fresh", "action": "view", "ts": 0},
        {"id": "fresh", "action": "buy", "ts": 0},
        *events(size),
    ]
    receipts = append(producer, offered, source="test")
    assert [str(receipt.answer) for receipt in receipts[:7]] == [
        "invalid", "duplicate", "conflict", "accepted", "invalid", "duplicate", "conflict",
    ]  # fmt: skip
    assert [receipt.event_id for receipt in receipts[:7]] == [
        "broken", "known", "other", "fresh", None, "fresh", "fresh",
    ]  # fmt: skip
    assert answers(receipts[7:]) == {"accepted"}
    producer.commit()
    differs = "the log holds an event with this id and other content"
    assert rejected(admin) == [
        ("test", 1, "invalid", "ts: is missing"),
        ("test", 3, "conflict", differs),
        ("test", 5, "invalid", "id: is missing; action: is missing"),
        ("test", 7, "conflict", differs),
    ]
    raw = admin.execute("SELECT raw FROM refold.rejected WHERE line IN (1, 7) ORDER BY line").fetchall()
    assert raw == [('{"id": "broken", "action": "view"}',), ('{"id": "fresh", "action": "buy", "ts": 0}',)]


@SIZES
def test_nothing_is_committed_for_the_caller(producer: Connection, admin: Connection, size: int) -> None:
    """That makes it an outbox: the events are there exactly if the caller's own rows are."""
    append(producer, [*events(size), {"id": "bad"}])
    assert stored(admin) == []
    assert rejected(admin) == []
    producer.rollback()
    assert stored(admin) == []
    assert answers(append(producer, events(size))) == {"accepted"}
    producer.commit()
    assert stored(admin) == ids(events(size))


@SIZES
def test_a_refused_copy_leaves_the_callers_work_alone(
    connect: Callable[..., Connection], admin: Connection, size: int
) -> None:
    admin.execute("CREATE TABLE orders (id integer)")
    caller = connect()
    caller.execute("INSERT INTO orders VALUES (1)")
    append(caller, events(1))
    assert [str(r.answer) for r in append(caller, events(size))] == ["duplicate"] + ["accepted"] * (size - 1)
    caller.execute("INSERT INTO orders VALUES (2)")
    caller.commit()
    assert admin.execute("SELECT count(*) FROM orders").fetchone() == (2,)
    assert stored(admin) == ids(events(size))


@SIZES
def test_autocommit_makes_the_call_one_transaction(
    producers: Callable[..., Connection], admin: Connection, size: int
) -> None:
    producer = producers(autocommit=True)
    append(producer, events(2))
    assert answers(append(producer, [*events(size), {"id": "bad"}])) == {"duplicate", "accepted", "invalid"}
    assert stored(admin) == ids(events(size))
    # What cannot be rejected takes the events with it.
    admin.execute("REVOKE EXECUTE ON FUNCTION refold.reject FROM refold_producer")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        append(producer, [*events(size, "f"), {"id": "bad"}])
    assert stored(admin) == ids(events(size))


@SIZES
def test_the_callers_row_factory_makes_no_difference(connect: Callable[..., Connection], size: int) -> None:
    caller = connect(row_factory=dict_row)
    append(caller, events(1))
    assert answers(append(caller, events(size))) == {"duplicate", "accepted"}


@SIZES
def test_the_callers_settings_make_no_difference(connect: Callable[..., Connection], size: int) -> None:
    """What the log means depends on no session."""
    plain, odd = connect(), connect()
    for setting in (
        "TimeZone = 'Asia/Kathmandu'", "DateStyle = 'SQL, DMY'", "IntervalStyle = 'sql_standard'", "search_path = ''",
        "extra_float_digits = -5", "bytea_output = 'escape'", "standard_conforming_strings = off", "jit_above_cost = 0",
        "client_encoding = 'LATIN1'", "escape_string_warning = off", "plan_cache_mode = force_generic_plan",
    ):  # fmt: skip
        odd.execute(f"SET {setting}".encode())
    offered = events(size, metadata={"price": 1.1, "where": "Zürich", "path": 'a\\b"c\t{}'})
    assert answers(append(odd, offered)) == {"accepted"}
    odd.commit()
    assert answers(append(plain, offered)) == {"duplicate"}


def test_any_mapping_is_an_event_and_nothing_else_is(producer: Connection) -> None:
    good = {"id": "a", "action": "view", "ts": 0}
    offered: list[Any] = [MappingProxyType(good), ChainMap(good, {"user_id": "u"}), None, ["id"], b"{}", object()]
    receipts = append(producer, offered)
    assert [str(r.answer) for r in receipts] == ["accepted", "conflict", *["invalid"] * 4]
    assert receipts[2].reason == "an event must be an object, not null"


def test_nothing_to_append(producer: Connection) -> None:
    assert append(producer, []) == []
    assert append(producer, iter(())) == []


ODD = [
    "a\\b",
    "\\N",
    "a\tb\nc\rd",
    'q"{},',
    "\\.",
    "NULL",
    "ü😀",
    "\x01\x7f",
    "'",
    "\b\f\v",
    " ",
    "%s",
    "\N{LINE SEPARATOR}",
]


@pytest.mark.parametrize("way", ["json", "copy", "arrays"])
def test_text_arrives_as_it_is(producer: Connection, way: str) -> None:
    """The three ways into the database quote differently."""
    odd = [{"id": t, "user_id": t, "action": t, "ts": 0, "metadata": {t: [t]}} for t in ODD]
    append(producer, odd if way == "json" else [*events(BULK), *odd], optimistic=way == "copy")
    producer.execute("RESET ROLE")
    rows = producer.execute(
        "SELECT event_id, user_id, action, metadata FROM refold.events WHERE event_id = ANY (%s)", (ODD,)
    ).fetchall()
    assert sorted(rows) == sorted((text, text, text, {text: [text]}) for text in ODD)


@SIZES
def test_a_stale_snapshot_is_told_to_retry(producers: Callable[..., Connection], size: int) -> None:
    """What a transaction cannot see it cannot compare; the whole of it has to be run again."""
    stale, other = producers(), producers()
    stale.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    stale.execute("SELECT 1")
    append(other, events(size))
    other.commit()
    with pytest.raises(psycopg.errors.SerializationFailure) as caught:
        append(stale, events(size))
    assert caught.value.sqlstate == "40001"
    assert "Retry the whole transaction" in (caught.value.diag.message_hint or "")
    stale.rollback()
    assert answers(append(stale, events(size))) == {"duplicate"}


@SIZES
@pytest.mark.parametrize("kind", ["fresh", "known"])
def test_two_phase_producers(connect: Callable[..., Connection], admin: Connection, size: int, kind: str) -> None:
    """PREPARE TRANSACTION refuses transactions that used temporary tables or notified somebody."""
    caller = connect()
    if kind == "known":
        append(caller, events(1))
        caller.commit()
    append(caller, [*events(size), {"id": "bad"}])
    caller.execute("PREPARE TRANSACTION 'append'")
    assert len(stored(admin)) == (kind == "known")
    admin.execute("COMMIT PREPARED 'append'")
    assert stored(admin) == ids(events(size))


def test_savepoints_of_the_caller(producer: Connection, admin: Connection) -> None:
    append(producer, events(1, "kept"))
    with producer.transaction(force_rollback=True):
        append(producer, events(BULK, "gone"))
    with producer.transaction():
        append(producer, events(BULK, "inner"))
    producer.commit()
    assert stored(admin) == ids([*events(1, "kept"), *events(BULK, "inner")])
    assert admin.execute("SELECT count(DISTINCT txid) FROM refold.events").fetchone() == (1,)


def test_sql_takes_an_array(producer: Connection) -> None:
    for argument, kind in [('{"id": "a"}', "an object"), ('"a"', "a string"), ("null", "null"), (None, "NULL")]:
        with (
            producer.transaction(),
            pytest.raises(psycopg.errors.InvalidParameterValue, match=f"takes a JSON array of events, not {kind}"),
        ):
            producer.execute("SELECT * FROM refold.append(%s)", (argument,))


def test_sql_answers_and_sets_aside(producer: Connection, admin: Connection) -> None:
    offered = """[{"id": "a", "action": "view", "ts": 0}, {"id": "a", "action": "buy", "ts": 0}, 7,
                  {"id": "a", "action": "view", "ts": 0, "metadata": {}}]"""
    rows = producer.execute("SELECT * FROM refold.append(%s, 'app')", (offered,)).fetchall()
    differs = "the log holds an event with this id and other content"
    assert rows == [
        (1, "a", "accepted", None),
        (2, "a", "conflict", differs),
        (3, None, "invalid", "an event must be an object, not a number"),
        (4, "a", "duplicate", None),
    ]
    producer.commit()
    assert rejected(admin) == [
        ("app", 2, "conflict", differs),
        ("app", 3, "invalid", "an event must be an object, not a number"),
    ]
    # The same again, as after a lost reply: counted, not kept twice.
    producer.execute("SELECT * FROM refold.append(%s, 'app')", (offered,))
    producer.commit()
    assert admin.execute("SELECT sum(times), count(*) FROM refold.rejected").fetchone() == (4, 2)
