"""The quick ways through a file change nothing: the same answers, the same rejected input, the same log in order.

Each file is read twice, with the quick ways and without any of them.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from refold import Log
from refold.errors import InputError
from refold.sources.files import json_files, mapper
from refold.sources.files.lines import Line, LineReader
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source
from refold.sources.files.run import Tally, ingest
from refold.sources.files.tables import Csv
from tests.support import event_cases

Connection = psycopg.Connection[Any]

EVENT = (
    b'{"id":"e%d","user_id":"u","action":"view","ts":"2026-03-01T10:00:00Z",'
    b'"metadata":{"n":%d,"deep":{"x":[1,{"y":2}]}}}'
)
GOOD = [EVENT % (n, n) for n in range(8)]
ODD = [
    EVENT % (1, 7),  # a conflict
    b'{"id": "s", "action": "view", "ts": 1767225600000}',
    b'{"id": "s2", "action": "view", "ts": 1767225600}',
    b'{"id":"twice","action":"a","action":"b","ts":"2026-03-01T10:00:00Z"}',
    b'{"id":"twice","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"a":1,"a":1}}',
    b'{"id":"twice in a list","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"l":[{"a":1, "a":2}]}}',
    b'{"id" :"blank","action":"b","ts":"2026-03-01T10:00:00Z","ts":"2026-03-01T10:00:00Z"}',
    b'{"id":"q\\":","action":"b","ts":"2026-03-01T10:00:00Z"}',
    b'{"id":"digits","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"a":1.10,"b":1e3,"c":-0.0,"d":1e400}}',
    b'{"id":"digits","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"a":' + b"9" * 2100 + b"}}",
    b'{"id":"nan","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"a":NaN}}',
    b'{"id":"nul","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"a":"\\u0000"}}',
    b'{"id":"\\ud800","action":"b","ts":"2026-03-01T10:00:00Z"}',
    b'{"id":"half","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"\\ud83d":"\\ud83d\\ude00"}}',
    b'{"id":"deep","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"a":' + b"[" * 99 + b"]" * 99 + b"}}",
    b'{"id":"too deep","action":"b","ts":"2026-03-01T10:00:00Z","metadata":{"a":' + b"[" * 100 + b"]" * 100 + b"}}",
    b'{"id":"spelling","action":"b","ts":"20260301T100000,5Z"}',
    b'{"id":"spelling","action":"b","ts":"2026-03-01 10:00:00.1234567 UTC"}',
    b'{"id":"no day","action":"b","ts":"2026-02-29T10:00:00Z"}',
    b'{"id":"local","action":"b","ts":"2026-03-01T10:00:00"}',
    b'{"id":"range","action":"b","ts":"9999-12-31T23:59:59-01:00"}',
    b'{"id":"too much","action":"b","ts":"2026-03-01T10:00:00Z","usr":1}',
    b'{"id":"several","action":"b","ts":"2026-03-01T10:00:00Z"}{"id":"several2","action":"b","ts":1767225600000}',
    b'{"id":"several","action":"b","ts":1767225600000},{"id":"several2","action":"b","ts":1767225600000}',
    b'{"id":"open","action":"b","ts":1767225600000,"metadata":{"a":[{"b":1}',
    b'{"c":2}]}}',
    b'{"id":"open',
    b"[]", b"{}", b"1", b'"text"', b"null", b"", b"  \t", b"{", b"}",
    b"\x00", b"\xff", b'{"id":"\xff"}', b"\xef\xbb\xbf{}",
    b' {"id":"blanks","action":"b","ts":1767225600000}\t',
    b'{"id":"cr","action":"b",\r"ts":1767225600000}',
    b'{"id":"\xe2\x80\xa8","action":"\xc2\x85","ts":1767225600000}',
]  # fmt: skip
ODD += [case.raw.encode("utf-8", "surrogateescape") for case in event_cases.load() if len(case.raw) < 5000]

HEADER = b"id,user_id,action,ts,amount,note"
ROW = b"e%d,u%d,view,2026-03-01T10:00:00Z,%d,"
ROWS = [ROW % (n, n, n) for n in range(8)]
ODD_ROWS = [
    ROW % (1, 7, 7),
    b'"q1","u, v","view","2026-03-01T10:00:00+01:00","1","a ""word"""',
    b'q2,u,view,2026-03-01T10:00:00Z,1,"two\nlines"',
    b'q2b,u,view,2026-03-01T10:00:00Z,1,"two\r\nlines"',
    b'q3,u,view,2026-03-01T10:00:00Z,1,"open',
    b'q4,u,view,2026-03-01T10:00:00Z,1,"a"b',
    b'q5,u,view,2026-03-01T10:00:00Z,1,a"b',
    b"q6,u,view,2026-03-01T10:00:00Z,1,a\rb",
    b"q7,,view,2026-03-01T10:00:00Z,NULL, blank ",
    b"q8,u,,2026-03-01T10:00:00Z,1,",
    b",u,view,2026-03-01T10:00:00Z,1,",
    b"q9,u,view,,1,",
    b"q10,u,view,2026-03-01 10:00,1,",
    b"q11,u,view,2026-03-29 02:30:00,1,",
    b"q12,u,view,2026-02-30T10:00:00Z,1,",
    b"q13,u,view,20260301T100000Z,1,",
    b"q14,u,view, 2026-03-01T10:00:00Z ,1,",
    b"q15,u,view,1767225600,1,",
    b"q16,u,view,2026-03-01T10:00:00Z,1",
    b"q17,u,view,2026-03-01T10:00:00Z,1,2,3",
    b"q18,u,view,2026-03-01T10:00:00Z,\\u0000,\\",
    b"q19,u\\,view,2026-03-01T10:00:00Z,\xc3\xa9,\xf0\x9f\x98\x80",
    b"q20,u\xe2\x80\xa8,vi\tew,2026-03-01T10:00:00Z,1,\xc2\x85",
    b"q21,\xff,view,2026-03-01T10:00:00Z,1,",
    b"q22,\x00,view,2026-03-01T10:00:00Z,1,",
    b"q23," + b"x" * 256 + b",view,2026-03-01T10:00:00Z,1,",
    b"q24,u,view,2026-03-01T10:00:00Z," + b"9" * 3000 + b",1",
    b"q25,u,view,2026-03-01T10:00:00Z," + b"9" * 17000 + b",1",
    b"", b"  ", b",", b'"', b'""', b",,,,,", b"\xef\xbb\xbf",
]  # fmt: skip
TABLES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"id_from": "row", "timezone": "Europe/Berlin"}, {"nulls": ("NULL",), "trim": True}),
    ({"id_from": "user_id,amount", "set": ["metadata.from=file", "version=3"]}, {}),
    ({"map": ["user_id=note", "metadata.who=user_id"], "set": ["action=buy"]}, {"nulls": ("NULL", "1")}),
    ({"map": ["user_id=note|user_id"]}, {}),
    ({"map": ["ts=amount"], "ts_format": "epoch_s"}, {}),
    ({"map": ["version=amount"]}, {}),
    ({"map": ["metadata=note"]}, {}),
    ({"set": ["ts=2026-01-01T00:00:00Z", "user_id=all"]}, {"columns": ["id", "a", "action", "b", "c", "d"]}),
]
JSONS: list[dict[str, Any]] = [
    {},
    {"map": ["user_id=metadata.n|user_id"]},
    {"map": ["action=action"]},
    {"set": ["version=2", "metadata.from=file"]},
    {"timezone": "Europe/Berlin"},
]


class InTransaction(Log):
    """A log whose transactions are savepoints of the test's."""

    def __init__(self, conn: Connection) -> None:
        super().__init__("")
        self._test = conn

    def run(self, work: Callable[[psycopg.Connection], Any]) -> Any:
        with self._test.transaction():
            return work(self._test)


@contextmanager
def slowly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the quick ways: line by line, each with the JSON reader of one line and a SourceEvent."""

    def nothing(*_: Any) -> None:
        return None

    def one(self: LineReader) -> list[Line]:
        return [line for line in [next(self, None)] if line is not None]

    with monkeypatch.context() as patch:
        patch.setattr(json_files, "parse_json_lines", nothing)
        patch.setattr(Csv, "_whole", nothing)
        patch.setattr(LineReader, "together", one)
        patch.setattr(mapper, "quick", nothing)
        patch.setattr(mapper.Mapper, "_quick_rows", nothing)
        yield


def outcome(conn: Connection, data: bytes, options: dict[str, Any], reading: dict[str, Any], batch: int) -> Any:
    """Everything that a run leaves, also when it ends with an error, and what a second run adds."""
    told: list[Any] = []
    tallies = [Tally(), Tally()]
    with conn.transaction(force_rollback=True):
        for tally in tallies:
            try:
                with open_source("-", name="file", stdin=io.BytesIO(data), **reading) as source:
                    convert = mapper.Mapper(Mapping.parse(**options), source)
                    rejected = lambda record, receipt: told.append((record, receipt))  # noqa: E731
                    ingest(InTransaction(conn), source, convert, tally, batch=batch, on_rejected=rejected)
            except InputError as error:
                told.append((str(error), error.remedy))
        log = conn.execute(
            "SELECT event_id, user_id, action, ts, metadata::text, version FROM refold.events ORDER BY position"
        ).fetchall()
        kept = conn.execute(
            "SELECT source, line, answer, reason, raw, times FROM refold.rejected ORDER BY rejected_id"
        ).fetchall()
    return tallies, told, log, kept


def file_of(lines: list[bytes], end: bytes, last: bool) -> bytes:
    return end.join(lines) + (end if last else b"")


def files(good: list[bytes], odd: list[bytes]) -> st.SearchStrategy[bytes]:
    line = st.one_of(st.sampled_from(good), st.sampled_from(good), st.sampled_from(odd))
    return st.builds(file_of, st.lists(line, max_size=12), st.sampled_from([b"\n", b"\n", b"\r\n"]), st.booleans())


sizes = st.sampled_from([1, 2, 5, 100])
judge = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@judge
@given(files(GOOD, ODD), st.sampled_from(JSONS), sizes, st.booleans())
@example(b"\n".join(GOOD + ODD + GOOD), {}, 100, False)
@example(b"\n".join([*GOOD, *ODD[24:26], ODD[23], *GOOD]), {}, 100, False)
def test_json(
    conn: Connection, monkeypatch: pytest.MonkeyPatch, data: bytes, options: dict[str, Any], batch: int, packed: bool
) -> None:
    given_data = gzip.compress(data) if packed else data
    quick = outcome(conn, given_data, options, {"format": "jsonl"}, batch)
    with slowly(monkeypatch):
        assert quick == outcome(conn, given_data, options, {"format": "jsonl"}, batch)


@judge
@given(files(ROWS, ODD_ROWS), st.sampled_from(TABLES), sizes, st.booleans())
@example(b"\n".join(ROWS + ODD_ROWS + ROWS), TABLES[0], 100, False)
@example(b"\n".join(ROWS + ODD_ROWS + ROWS), TABLES[1], 100, False)
@example(b"\n".join(ROWS + ODD_ROWS + ROWS), TABLES[2], 100, False)
def test_csv(
    conn: Connection,
    monkeypatch: pytest.MonkeyPatch,
    rows: bytes,
    told: tuple[dict[str, Any], dict[str, Any]],
    batch: int,
    cut: bool,
) -> None:
    options, reading = told[0], {"format": "csv", **told[1]}
    data = rows if "columns" in reading else HEADER + b"\n" + rows
    if cut:
        data = gzip.compress(data)[:-9]
    quick = outcome(conn, data, options, reading, batch)
    with slowly(monkeypatch):
        assert quick == outcome(conn, data, options, reading, batch)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_each_odd_line_among_good_ones(conn: Connection, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    begin, good, odd = ([], GOOD, ODD) if form == "jsonl" else ([HEADER], ROWS, ODD_ROWS)
    too_large = b"q26,u,view,2026-03-01T10:00:00Z," + b"9" * 1_050_000 + b",1"
    for line in [*odd, too_large]:
        data = b"\n".join([*begin, *good[:2], line, *good[2:4]])
        quick = outcome(conn, data, {}, {"format": form}, 100)
        with slowly(monkeypatch):
            assert quick == outcome(conn, data, {}, {"format": form}, 100), line


def test_ordinary_files_take_the_quick_ways(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the slow way was taken")

    monkeypatch.setattr(json_files, "_record", refuse)
    monkeypatch.setattr(mapper.Mapper, "__call__", refuse)
    monkeypatch.setattr(mapper.Mapper, "_mapped", refuse)
    monkeypatch.setattr("refold.sources.files.tables._Feed.__next__", refuse)
    tally = outcome(conn, b"\n".join(GOOD), {}, {"format": "jsonl"}, 100)[0][0]
    assert tally == Tally(received=8, stored=8)
    tally = outcome(conn, b"\n".join([HEADER, *ROWS, ODD_ROWS[1]]), {}, {"format": "csv"}, 100)[0][0]
    assert tally == Tally(received=9, stored=9)
