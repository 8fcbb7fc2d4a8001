"""Fault 17: bad events. None stops another, and each is kept with a reason that says what is wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from refold import Log, append
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source
from refold.sources.files.run import Tally, ingest
from refold.store.log.append import BULK
from tests.support.making import events, ids, stored

Connection = psycopg.Connection[Any]


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels - 1):
        nested = [nested]
    return nested


POISON: list[tuple[str, dict[str, Any], str]] = [
    ("NUL in the id", {"id": "a\0b"}, "id: contains a NUL character"),
    ("NUL in metadata", {"metadata": {"a": ["\0"]}}, "metadata: contains a NUL character"),
    ("half a character", {"user_id": "\ud83d"}, "user_id: contains a lone surrogate"),
    ("half a character in a key", {"metadata": {"\ude00": 1}}, "metadata: contains a lone surrogate"),
    ("NaN", {"metadata": {"a": float("nan")}}, "metadata: holds nan, which is not a JSON number"),
    ("infinity", {"metadata": {"a": float("-inf")}}, "metadata: holds -inf, which is not a JSON number"),
    (
        "too large a number",
        {"metadata": {"a": Decimal("1e400000")}},
        "metadata: holds a number of more than 2000",
    ),
    ("too many digits", {"metadata": {"a": 10**2_000}}, "metadata: holds a number of more than 2000"),
    ("9,000 characters of id", {"id": "x" * 9_000}, "id: must have 1 to 255 characters, not 9000"),
    ("year 300000", {"ts": "300000-01-01T00:00:00Z"}, "ts: '300000-01-01T00:00:00Z' is not an ISO 8601 time"),
    ("year 300000 in milliseconds", {"ts": 9_404_899_200_000_000}, "ts: 9404899200000000 is out of range"),
    ("30 February", {"ts": "2020-02-30T00:00:00Z"}, "ts: '2020-02-30T00:00:00Z' is not a day of the calendar"),
    ("infinity as a time", {"ts": "infinity"}, "ts: 'infinity' is not an ISO 8601 time"),
    ("20,000 levels", {"metadata": {"a": deep(20_000)}}, "metadata: is nested more than 100 levels deep"),
    ("2 MB", {"metadata": {"a": "x" * 2**21}}, "metadata: is larger than 1048576 bytes"),
    ("what JSON does not know", {"metadata": {"a": {1, 2}}}, "metadata: holds a Python set"),
    ("a key that is no string", {"metadata": {7: 1}}, "metadata: has a key that is a number"),
    ("a naive time", {"ts": datetime(2020, 1, 1)}, "has no offset from UTC"),
]
"""What Python can offer: name, fields that replace those of a good event, reason."""


@pytest.mark.parametrize("size", [3, BULK + 1], ids=str)
def test_bad_events_from_python_are_rejected(producer: Connection, admin: Connection, size: int) -> None:
    good = events(size)
    bad = [{"id": f"bad{n}", "action": "view", "ts": 0, **fields} for n, (_, fields, _) in enumerate(POISON)]
    offered = [one for pair in zip(good, bad, strict=False) for one in pair] + good[len(bad) :] + bad[len(good) :]
    receipts = append(producer, offered)
    producer.commit()
    assert [str(receipt.answer) for receipt in receipts] == ["invalid" if one in bad else "accepted" for one in offered]
    assert stored(admin) == ids(good)
    kept = admin.execute("SELECT line, reason, raw FROM refold.rejected").fetchall()
    reasons = {line: reason for line, reason, _ in kept}
    for (name, _, reason), one in zip(POISON, bad, strict=True):
        assert reason in reasons[offered.index(one) + 1], name
    assert all(len(reason) < 300 and raw for _, reason, raw in kept)


def file(text: str | bytes, form: Any, url: str, **options: Any) -> Tally:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    with open_source("-", format=form, name="file", stdin=io.BytesIO(data)) as source, Log(url) as log:
        return ingest(log, source, Mapper(Mapping.parse(**options), source), Tally())


def test_json_lines(database_url: str, admin: Connection) -> None:
    """Text can hold more than Python's json would write, and less."""
    good = [json.dumps(event) for event in events(4)]
    start = b'{"id": "bad", "action": "view", "ts": 0, "metadata": '
    bad: list[tuple[bytes, str]] = [
        (start + b'{"a": NaN}}', "holds NaN, which is not a JSON number"),
        (start + b'{"a": 1e400000}}', "holds a number of more than 2000 digits"),
        (start + b'{"a": 1, "a": 2}}', "has the key 'a' twice"),
        (start + b'{"a": "\\u0000"}}', "contains a NUL character"),
        (start + b'{"a": "\\ud800"}}', "contains a lone surrogate"),
        (start + b'{"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}}", "deep"),
        (start + b'{"a": "\xff"}}', "is not UTF-8 (byte "),
        (start + b'{"a": "\xed\xa0\x80"}}', "is not UTF-8 (byte "),
        (start + b'{"a": "\x00"}}', "contains a NUL byte"),
        (start, "is not valid JSON"),
        (b"\x80\x81", "is not UTF-8 (byte 1 is 0x80)"),
        (b"x" * 17_000_000, "has 17000001 bytes, more than 16777216"),
    ]
    lines = [good[0].encode()]
    for raw, _ in bad:
        lines += [raw]
    lines += [line.encode() for line in good[1:]]
    tally = file(b"\n".join(lines) + b"\n", "jsonl", database_url)
    assert tally == Tally(received=16, stored=4, invalid=12)
    assert stored(admin) == ids(events(4))
    kept = admin.execute("SELECT line, reason, raw FROM refold.rejected ORDER BY line").fetchall()
    assert [line for line, _, _ in kept] == list(range(2, 14))
    for (_, expected), (_, reason, raw) in zip(bad, kept, strict=True):
        assert expected in reason
        assert raw


def test_bad_lines_of_csv_are_rejected(database_url: str, admin: Connection) -> None:
    rows = [
        b"a,u,view,2026-03-02",
        b"b\x00,u,view,2026-03-02",
        b"c,\xff,view,2026-03-02",
        b"d,u,view,2026-02-30",
        b"e,u,view,infinity",
        b"f,u,view,300000-01-01",
        b"x" * 9_000 + b",u,view,2026-03-02",
        b'h,"u"x,view,2026-03-02',
        b"i,u,view",
        b"j,u,view,2026-03-02,more",
        b",u,view,2026-03-02",
        b"z,u,view,2026-03-02",
    ]
    tally = file(b"\n".join([b"id,user_id,action,ts", *rows]) + b"\n", "csv", database_url, timezone="UTC")
    assert tally == Tally(received=12, stored=2, invalid=10)
    assert stored(admin) == ["a", "z"]
    kept = admin.execute("SELECT line, reason FROM refold.rejected ORDER BY line").fetchall()
    assert [line for line, _ in kept] == list(range(3, 13))
    for part, (_, reason) in zip(
        ["NUL byte", "not UTF-8", "not a day", "'infinity'", "'300000-01-01'", "255 characters", "not valid CSV",
         "has 3 values for 4", "has 5 values for 4", "'id' is empty"],
        kept, strict=True,
    ):  # fmt: skip
        assert part in reason


def test_bad_events_from_sql_are_rejected(producer: Connection, admin: Connection) -> None:
    """What jsonb can hold is answered event by event; what it cannot is Postgres's own error, before anything."""
    good = events(3)
    bad: list[tuple[Any, str]] = [
        ({"id": "x" * 9_000, "action": "view", "ts": 0}, "id: must have 1 to 255 characters, not 9000"),
        ({"id": "b", "action": "view", "ts": "300000-01-01T00:00:00Z"}, "ts: must be epoch milliseconds"),
        ({"id": "b", "action": "view", "ts": "2020-02-30T00:00:00Z"}, "ts: must be epoch milliseconds"),
        ({"id": "b", "action": "view", "ts": "infinity"}, "ts: must be epoch milliseconds"),
        ({"id": "b", "action": "view", "ts": 0, "metadata": {"a": deep(900)}}, "metadata: is nested more than 100"),
        ({"id": "b", "action": "view", "ts": 0, "metadata": {"a": "x" * 2**21}}, "metadata: is larger than"),
        (None, "an event must be an object, not null"),
    ]
    document = json.dumps([good[0], *(one for one, _ in bad), *good[1:]])
    rows = producer.execute("SELECT answer, reason FROM refold.append(%s)", (document,)).fetchall()
    assert [answer for answer, _ in rows] == ["accepted", *["invalid"] * len(bad), "accepted", "accepted"]
    for (_, expected), (_, reason) in zip(bad, rows[1:], strict=False):
        assert expected in reason
    producer.commit()
    for text in (
        '{"a": "\\u0000"}',
        '{"a": "\\ud800"}',
        '{"a": NaN}',
        '{"a": 1e400000}',
        '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}",
    ):
        with pytest.raises((psycopg.errors.DataError, psycopg.errors.StatementTooComplex)), producer.transaction():
            producer.execute(
                "SELECT refold.append(%s::jsonb)",
                (f'[{{"id": "p", "action": "view", "ts": 0, "metadata": {text}}}]',),
            )
    producer.commit()
    assert stored(admin) == ids(good)


def test_plain_inserts(producers: Callable[..., Connection], admin: Connection) -> None:
    """Constraints of the log itself: nobody needs to be careful."""
    producer = producers(autocommit=True)
    insert = (
        "INSERT INTO refold.events (event_id, user_id, action, ts, metadata, version) VALUES (%s, %s, %s, %s, %s, %s)"
    )
    good = ("a", "u", "view", "2026-03-02T00:00:00Z", "{}", 1)
    for place, value in [
        (0, ""), (0, "x" * 256), (0, None), (1, ""), (1, "x" * 256), (2, ""), (2, "x" * 9_000), (2, None),
        (3, "infinity"), (3, "-infinity"), (3, "0001-01-01T00:00:00Z BC"), (3, "20000-01-01T00:00:00Z"), (3, None),
        (4, "[]"), (4, "null"), (4, None), (5, 0), (5, 32_768), (5, None),
    ]:  # fmt: skip
        with pytest.raises(psycopg.errors.IntegrityError):
            producer.execute(insert, (*good[:place], value, *good[place + 1 :]))
    producer.execute(insert, good)
    assert stored(admin) == ["a"]


def test_raw_text_stays_readable(producer: Connection, admin: Connection) -> None:
    append(producer, [{"id": "a\0", "action": "\ud800", "ts": datetime(2020, 1, 1, tzinfo=UTC), "metadata": {1, 2}}])
    producer.commit()
    ((raw,),) = admin.execute("SELECT raw FROM refold.rejected").fetchall()
    assert raw.startswith('{"id": "a\\u0000", "action": "\\ud800", "ts": "datetime.datetime(2020')
