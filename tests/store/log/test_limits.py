"""The limits of metadata hold at every door of the log: nothing gets in that its readers cannot read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.support.making import stored

Connection = psycopg.Connection[Any]

BEYOND = {
    "digits": ('{"a": 1e2000}', "more than 2000 digits"),
    "the digits of the first report": ('{"a": 1e131000}', "more than 2000 digits"),
    "decimals": ('{"a": [1e-2000]}', "more than 2000 digits"),
    "a long integer": ('{"a": ' + "9" * 5000 + "}", "more than 2000 digits"),
    "depth": ('{"a": ' + "[" * 100 + "]" * 100 + "}", "more than 100 levels"),
    "depth of objects": ('{"a":' * 3000 + "1" + "}" * 3000, "more than 100 levels"),
    "size": ('{"a": "' + "x" * 1_048_568 + '"}', "larger than 1048576 bytes"),
    "size once printed": ('{"a": [' + "1e1999," * 600 + "0]}", "larger than 1048576 bytes"),
}
WITHIN = {
    "digits": '{"a": 1e1999}',
    "depth": '{"a": ' + "[" * 99 + "]" * 99 + "}",
    "size": '{"a": "' + "x" * 1_048_567 + '"}',
    "a string of digits": '{"a": "' + "9" * 5000 + '"}',
}


def insert(conn: Connection, metadata: str) -> None:
    conn.execute(
        "INSERT INTO refold.events (event_id, action, ts, metadata) VALUES ('a', 'view', now(), %s::jsonb)", (metadata,)
    )


def copy(conn: Connection, metadata: str) -> None:
    statement = "COPY refold.events (event_id, action, ts, metadata) FROM STDIN"
    with conn.cursor() as cursor, cursor.copy(statement) as lines:
        lines.write_row(("a", "view", "2026-03-02T00:00:00Z", metadata))


def parsed(conn: Connection, metadata: str) -> None:
    row = "ROW(1, 'a', NULL, 'view', now(), %s::jsonb, 1, NULL)::refold.parsed_event"
    conn.execute(f"SELECT refold.admit_parsed(ARRAY[{row}])".encode(), (metadata,))


DOORS: list[Callable[[Connection, str], None]] = [insert, copy, parsed]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("name", BEYOND)
def test_what_is_beyond_them(producer: Connection, admin: Connection, name: str, door: Any) -> None:
    metadata, reason = BEYOND[name]
    with pytest.raises(psycopg.errors.CheckViolation, match=reason) as refused:
        door(producer, metadata)
    assert refused.value.diag.constraint_name == "events_metadata_limits"
    producer.rollback()
    assert stored(admin) == []


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("name", WITHIN)
def test_what_is_within_them(producer: Connection, admin: Connection, name: str, door: Any) -> None:
    door(producer, WITHIN[name])
    producer.commit()
    assert stored(admin) == ["a"]


@pytest.mark.parametrize("name", BEYOND)
def test_append_answers_and_takes_the_others(producer: Connection, admin: Connection, name: str) -> None:
    metadata, reason = BEYOND[name]
    events = (
        f'[{{"id": "x", "action": "a", "ts": 0, "metadata": {metadata}}}, {{"id": "good", "action": "a", "ts": 0}}]'
    )
    rows = producer.execute("SELECT answer, reason FROM refold.append(%s::jsonb)", (events,)).fetchall()
    producer.commit()
    assert [answer for answer, _ in rows] == ["invalid", "accepted"]
    assert reason in rows[0][1]
    assert stored(admin) == ["good"]


def test_a_source_that_no_index_can_hold(producer: Connection, admin: Connection) -> None:
    """It is kept by its start and a fingerprint; the good event does not fall with the bad one."""
    for source in ("".join(chr(0x4E00 + number) for number in range(6000)), "x" * 255, "x" * 256):
        answers = producer.execute(
            'SELECT answer FROM refold.append(\'[{"id": "a", "action": "a", "ts": 0}, 7]\', source => %s)', (source,)
        ).fetchall()
        assert answers[1] == ("invalid",)
    producer.commit()
    assert stored(admin) == ["a"]
    kept = admin.execute("SELECT source FROM refold.rejected ORDER BY rejected_id").fetchall()
    assert [len(source) for (source,) in kept] == [255, 255, 255]
    assert kept[1] == ("x" * 255,) and kept[2][0].startswith("x" * 222 + " ")
