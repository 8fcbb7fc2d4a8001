"""JSON that is not one object a line gives one record each, with the line where it begins."""

import gzip
import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.errors import InputError
from refold.sources.files import json_files, json_values, lines
from refold.sources.files.json_values import Unclosed, values
from refold.sources.files.readers import Record, open_source


def records(data: str | bytes) -> list[Record]:
    encoded = data.encode() if isinstance(data, str) else data
    with open_source("-", format="jsonl", stdin=io.BytesIO(encoded)) as source:
        return list(source)


def places(found: list[Record]) -> list[tuple[int, int, Any]]:
    return [(record.line, record.row, record.fields) for record in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"a": 1},{"a": 2}]', [(1, 1), (1, 2)]),
        ('[{"a": 1},\n{"a": 2}]\n', [(1, 1), (2, 2)]),
        ('\ufeff\n[\n  {"a": 1},\n\n  {"a": 2}\n]\n', [(3, 1), (5, 2)]),
        ('[\n{\n"a": 1\n},\n{\n"a":\n2}]', [(2, 1), (5, 2)]),
        ('[{"a": 1}]\n[{"a": 2}]\n', [(1, 1), (2, 2)]),
        ('{\n"a": 1\n}\n{\n"a": 2\n}\n', [(1, 1), (4, 2)]),
        ('{"a": 1}{"a": 2}', [(1, 1), (1, 2)]),
        ('{"a": 1} {"a": 2}\n', [(1, 1), (1, 2)]),
        ('{"a": 1}\n{"a": 2}', [(1, 1), (2, 2)]),
        ("[]", []),
        ("[\n]\n", []),
        ("[]\n[]", []),
    ],
)
def test_one_record_each(text: str, expected: list[tuple[int, int]]) -> None:
    assert places(records(text)) == [(line, row, {"a": row}) for line, row in expected]


def test_what_strings_hold_divides_nothing() -> None:
    tricky = '{"a": "}{][,\\"{", "b": ["\\\\", {"c": "]"}], "d\\n": "}{"}'
    for text in (f"[{tricky},{tricky}]", f"{tricky}{tricky}", f"{{\n{tricky[1:]}\n{tricky}"):
        assert [record.fields for record in records(text)] == [json.loads(tricky)] * 2
    [one] = records(tricky)
    assert (one.raw, one.fields) == (tricky, json.loads(tricky))


def test_numbers_stay_digit_for_digit() -> None:
    [found] = records('[{"a": 1.10, "b": 12345678901234567890}]')
    assert str(found.fields) == "{'a': Decimal('1.10'), 'b': 12345678901234567890}"


def test_bad_elements_cost_no_others() -> None:
    found = records(
        b'[{"a": 1}, 7, "x,]", null, [1, {}],\n{"a": 1, "a": 2}, {"a": "\xff"}, {a}, {"a": NaN},\n{"a": 3}]'
    )
    assert [record.row for record in found] == list(range(1, 11))
    assert [record.line for record in found] == [1] * 5 + [2] * 4 + [3]
    assert [record.fields for record in found] == [{"a": 1}, *[None] * 8, {"a": 3}]
    reasons = [str(record.error) for record in found[1:-1]]
    assert reasons[:5] == [
        "the record must be a JSON object, not a number",
        "the record must be a JSON object, not a string",
        "the record must be a JSON object, not null",
        "the record must be a JSON object, not an array",
        "the record has the key 'a' twice in one object: keep one",
    ]
    assert reasons[5].startswith("the record is not UTF-8")
    assert reasons[6].startswith("the record is not valid JSON")
    assert reasons[7].startswith("the record holds NaN")
    assert [record.raw for record in found[1:5]] == ["7", '"x,]"', "null", "[1, {}]"]
    assert found[6].raw == '{"a": "\\xff"}'


def test_several_objects_on_a_line_of_json_lines() -> None:
    found = records(b'{"a": 1}{"a": 2}\n\n{"a": 3}{"a": "\xff"}{"a": 5}\n{"a": 6}{"a":\n{"a": 8} x\n{"a": 9}\n')
    assert [(record.line, record.row) for record in found] == [
        (1, 1), (1, 2), (3, 3), (3, 4), (3, 5), (4, 6), (4, 7), (5, 8), (6, 9)
    ]  # fmt: skip
    assert [record.fields and record.fields["a"] for record in found] == [1, 2, 3, None, 5, 6, None, None, 9]
    assert str(found[3].error).startswith("the line is not UTF-8")
    assert (found[6].raw, str(found[6].error)[:26]) == ('{"a":', "the line is not valid JSON")
    assert str(found[7].error).startswith("the line is not valid JSON: Extra data")


def test_bytes_that_are_no_text_cannot_hide_behind_a_backslash() -> None:
    """Replaced, they would read as a backslash and three letters."""
    found = records(b'{"a": 1}{"a": "\\\xff"}\n{"a": 1}{"a": "\\\0"}\n')
    assert [record.fields for record in found] == [{"a": 1}, None, {"a": 1}, None]


@pytest.mark.parametrize(
    ("text", "line", "before"),
    [
        ('[{"a": 1},\n{"a": 2}', 1, 2),
        ('[{"a": 1},\n', 1, 1),
        ('\n[', 2, 0),
        ('[{"a": 1},\n{"a": 2\n\n', 2, 1),
        ('[\n{"a": "x', 2, 0),
        ('[\n{"a": "x\\', 2, 0),
        ('{\n"a": 1}\n{\n"a": [\n', 3, 1),
    ],
)  # fmt: skip
def test_a_file_that_ends_early_delivers_what_came_before(text: str, line: int, before: int) -> None:
    found = []
    what = f"ends early: what begins on line {line} is not closed"
    stdin = io.BytesIO(text.encode())
    with open_source("-", format="jsonl", stdin=stdin) as source, pytest.raises(InputError, match=what):
        for record in source:
            found.append(record)
    assert [record.fields for record in found] == [{"a": n + 1} for n in range(before)]


def test_a_damaged_array_says_so() -> None:
    data = gzip.compress(("[" + ",\n".join(f'{{"n": {n}}}' for n in range(20_000)) + "]").encode())[:-9000]
    found = []
    what = "the gzip data end early or are damaged after line"
    with open_source("-", format="jsonl", stdin=io.BytesIO(data)) as source, pytest.raises(InputError, match=what):
        for record in source:
            found.append(record.fields)
    assert found == [{"n": n} for n in range(len(found))]
    assert found


def test_a_record_that_is_too_long_costs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "MAX_LINE_BYTES", 200_000)
    monkeypatch.setattr(json_files, "MAX_LINE_BYTES", 200_000)
    for size in (200_001, 1_000_000):
        long = '{"a":\n"' + "x" * (size - 9) + '"}'
        after = records(f'[{{"a": 1}},\n{long},\n{{"a": 2}}]')
        assert [(record.line, record.fields) for record in after] == [(1, {"a": 1}), (2, None), (4, {"a": 2})]
        assert after[1].raw == long[: lines.KEPT_BYTES]
        assert str(after[1].error).startswith(f"the record has {size} bytes, more than 200000; only the first 65536")
    [whole] = records('[{"a":\n"' + "x" * (200_000 - 9) + '"}]')
    assert whole.error is None


def test_a_line_that_was_cut_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects behind the cut would be neither stored nor rejected."""
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100_000)
    found = records('{"a": 1}\n' + '{"a": 2}' * 20_000 + '\n{"a": 3}\n')
    assert [(record.line, record.fields) for record in found] == [(1, {"a": 1}), (2, None), (3, {"a": 3})]
    assert "more than 100000; only the first 65536 are kept" in str(found[1].error)


@pytest.mark.parametrize("form", ["array", "joined", "pretty"])
def test_memory_stays_bounded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, json_values, json_files):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 1 << 20)
    one = b'{"id": "%d", "text": "' + b"x" * 1000 + b'"}'

    def parts() -> Iterator[bytes]:
        yield {"array": b"[", "joined": b"", "pretty": b"{\n}"}[form]
        for n in range(20_000):
            yield one % n + {"array": b",", "joined": b"", "pretty": b"\n"}[form]
        yield b"]" if form == "array" else b""

    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self._parts = parts()
            self._rest = b""

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
            rest = self._rest or next((part for part in self._parts if part), b"")
            data, self._rest = rest[: len(buffer)], rest[len(buffer) :]
            buffer[: len(data)] = data
            return len(data)

    tracemalloc.start()
    try:
        with open_source("-", format="jsonl", stdin=io.BufferedReader(Stream(), 4096)) as source:
            count = sum(record.error is None for record in source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000 + (form == "pretty")
    assert peak < 8 << 20


json_texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('ab"\\{}[],: \n'), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
separators = st.sampled_from(["", " ", "\n", ",\n", "\r\n\t"])


@given(
    st.lists(st.tuples(st.dictionaries(st.text(max_size=3), json_texts), separators)), st.integers(1, 9), st.booleans()
)
def test_however_the_bytes_come(objects: list[tuple[dict[str, Any], str]], size: int, array: bool) -> None:
    text = "".join(json.dumps(one, indent=size % 2 or None) + end for one, end in objects)
    data = (f"[{text}]" if array else text).encode()
    pieces = iter([*(data[at : at + size] for at in range(0, len(data), size)), b""])
    found = list(values(lambda: next(pieces, b""), 1))
    assert [json.loads(value.data) for value in found] == [one for one, _ in objects]
    at = 0
    for value in found:
        at = data.index(value.data, at)
        assert value.line == data.count(b"\n", 0, at) + 1
        at += len(value.data)


@given(st.binary(max_size=30) | st.text(st.sampled_from('{}[]"\\,: \na1'), max_size=30).map(str.encode))
def test_any_bytes_are_divided_without_a_loss(data: bytes) -> None:
    pieces = iter([data, b""])
    found = b""
    try:
        for value in values(lambda: next(pieces, b""), 1):
            assert value.data
            found += value.data
    except Unclosed as rest:
        found += rest.data
    leave = bytes.maketrans(b"", b"")
    assert found.translate(leave, b" \t\r\n,[]") == data.translate(leave, b" \t\r\n,[]")
