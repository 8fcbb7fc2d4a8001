"""Rows of Parquet become events with every digit, and what cannot is rejected row by row."""

import importlib
import io
import tracemalloc
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from refold.errors import InputError
from refold.model.event.source_event import SourceEvent
from refold.sources.files.arrow_values import values_of
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import Record, open_source

pa = pytest.importorskip("pyarrow")
pq = importlib.import_module("pyarrow.parquet")

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.parquet"


def write(path: Path, columns: dict[str, Any], **options: Any) -> None:
    pq.write_table(pa.table(columns), path, **options)


def records(path: Path, **options: Any) -> list[Record]:
    with open_source(path, **options) as source:
        return list(source)


def values(path: Path, *column: Any) -> list[Any]:
    write(path, {"x": pa.array(*column)})
    return [record.fields and record.fields["x"] for record in records(path)]


def convert(path: Path, **options: Any) -> list[SourceEvent | str]:
    with open_source(path) as source:
        mapper = Mapper(Mapping.parse(**options), source)
        return [mapper(record) for record in source]


def event(**fields: Any) -> SourceEvent:
    return SourceEvent.model_validate(fields)


def test_rows_and_their_numbers(path: Path) -> None:
    write(path, {"a": [1, 2, None], "b": ["x", None, "ä"]})
    with open_source(path) as source:
        assert (source.name, source.columns, source.total_bytes) == ("shop.parquet", ("a", "b"), path.stat().st_size)
        assert list(source) == [
            Record(1, 1, '{"a":1,"b":"x"}', {"a": 1, "b": "x"}),
            Record(2, 2, '{"a":2}', {"a": 2, "b": None}),
            Record(3, 3, '{"b":"ä"}', {"a": None, "b": "ä"}),
        ]
        assert source.bytes_read == source.total_bytes


def test_events_with_nested_metadata(path: Path) -> None:
    price = pa.array([Decimal("1.10"), None], pa.decimal128(38, 2))
    write(
        path,
        {
            "who": pa.array([7, None], pa.int64()),
            "event": ["buy", "view"],
            "at": pa.array([NOON, NOON], pa.timestamp("us", "Europe/Berlin")),
            "price": price,
            "items": [[{"sku": "a", "n": 1}], None],
            "geo": [{"city": "Ulm", "zip": None}, None],
        },
    )
    assert convert(path, map=["user_id=who,action=event,ts=at,metadata.city=geo.city"], id_from="row") == [
        event(
            id="shop.parquet:1", user_id="7", action="buy", ts=NOON,
            metadata={
                "price": Decimal("1.10"), "items": [{"sku": "a", "n": 1}],
                "geo": {"city": "Ulm", "zip": None}, "city": "Ulm",
            },
        ),
        event(id="shop.parquet:2", action="view", ts=NOON),
    ]  # fmt: skip


def test_fields_by_name(path: Path) -> None:
    write(path, {"id": ["a", "b"], "action": ["v", None], "ts": pa.array([NOON, NOON]).cast(pa.timestamp("ms", "UTC")),
                 "version": [2, None], "metadata": [{"x": 1}, None]})  # fmt: skip
    assert convert(path) == [
        event(id="a", action="v", ts=NOON, version=2, metadata={"x": 1}),
        "action: the column 'action' is empty",
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_follow_the_time_zone(path: Path, unit: str) -> None:
    local = pa.array([datetime(2026, 3, 1, 12)], pa.timestamp(unit))
    write(path, {"id": ["a"], "action": ["v"], "ts": local})
    assert convert(path) == ["ts: '2026-03-01T12:00:00' has no offset from UTC: name its time zone with --timezone"]
    assert convert(path, timezone="Europe/Berlin") == [event(id="a", action="v", ts=NOON - timedelta(hours=1))]
    write(path, {"id": ["a"], "action": ["v"], "ts": pa.array([NOON], pa.timestamp(unit, "Asia/Tokyo"))})
    assert convert(path) == convert(path, timezone="Europe/Berlin") == [event(id="a", action="v", ts=NOON)]


def test_nanoseconds_are_cut(path: Path) -> None:
    at = pa.array([1772442000123456999], pa.timestamp("ns", "UTC"))
    write(path, {"id": ["a"], "action": ["v"], "ts": at})
    assert convert(path) == [event(id="a", action="v", ts=datetime(2026, 3, 2, 9, 0, 0, 123456, tzinfo=UTC))]
    assert records(path)[0].fields == {"id": "a", "action": "v", "ts": "2026-03-02T09:00:00.123456999Z"}


def test_numbers_as_times(path: Path) -> None:
    write(path, {"id": ["a"], "action": ["v"], "ts": [1772442000123456789]})
    assert "--ts-format epoch_ns" in str(convert(path)[0])
    [found] = convert(path, ts_format="epoch_ns")
    assert isinstance(found, SourceEvent)
    assert found.ts.microsecond == 123456


def test_dates(path: Path) -> None:
    write(path, {"id": ["a"], "action": ["v"], "ts": pa.array([date(2026, 3, 1)])})
    assert convert(path, timezone="Asia/Tokyo") == [event(id="a", action="v", ts=datetime(2026, 2, 28, 15, tzinfo=UTC))]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (([True, None],), [True, None]),
        (([2**63 - 1, -(2**63)],), [2**63 - 1, -(2**63)]),
        (([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (([1.5, None], pa.float32()), [1.5, None]),
        (([None, None], pa.null()), [None, None]),
        (([Decimal("12345678901234567890123456789.123456789")], pa.decimal128(38, 9)),
         [Decimal("12345678901234567890123456789.123456789")]),
        (([Decimal("1.50")], pa.decimal256(60, 20)), [Decimal("1.50000000000000000000")]),
        (([Decimal(10**37 + 1)], pa.decimal128(38, 0)), [10**37 + 1]),
        ((["a", None, "a"], pa.dictionary(pa.int32(), pa.string())), ["a", None, "a"]),
        ((["a"], pa.large_string()), ["a"]),
        (([b"\x00\xff", None],), ["\\x00ff", None]),
        (([b"ab"], pa.binary(2)), ["\\x6162"]),
        (([date(2026, 3, 1), date(1, 1, 1), None],), ["2026-03-01", "0001-01-01", None]),
        (([time(9, 30), time(9, 30, 0, 5), None], pa.time64("us")), ["09:30:00", "09:30:00.000005", None]),
        (([time(9, 30)], pa.time32("ms")), ["09:30:00"]),
        (([timedelta(seconds=1.5)], pa.duration("us")), [Decimal("1.500000")]),
        (([[1, None], None, []],), [[1, None], None, []]),
        (([[[1], []], [None]],), [[[1], []], [None]]),
        (([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)), [[1, 2], [3, 4]]),
        (([["a"], None], pa.large_list(pa.string())), [["a"], None]),
        (([{"a": {"b": [1]}}, None, {"a": None}],), [{"a": {"b": [1]}}, None, {"a": None}]),
        (([{"a": NOON}], pa.struct([("a", pa.timestamp("ns", "UTC"))])), [{"a": "2026-03-01T12:00:00Z"}]),
        (([[("k", 1), ("l", None)], None, []], pa.map_(pa.string(), pa.int32())), [{"k": 1, "l": None}, None, {}]),
        (([[(1, ["x"])]], pa.map_(pa.int32(), pa.list_(pa.string()))), [{"1": ["x"]}]),
    ],
)  # fmt: skip
def test_values(path: Path, column: Any, expected: list[Any]) -> None:
    found = values(path, *column)
    assert found == expected
    assert [type(one) for one in found] == [type(one) for one in expected]
    assert str(found) == str(expected)


def test_lists_below_a_null(path: Path) -> None:
    """A null list may have values in the buffer, which belong to no row."""
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2, 4, 5]), pa.array([1, 2, 3, 4, 5]), mask=pa.array([False, True, False])
    )
    with_nulls = pa.StructArray.from_arrays([lists], ["l"], mask=pa.array([False, False, True]))
    assert values_of(lists) == [[1, 2], None, [5]]
    assert values_of(pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2))) == [[1, 2], None, [3, 4]]
    assert values_of(lists.slice(1)) == [None, [5]]
    assert values_of(with_nulls) == [{"l": [1, 2]}, {"l": None}, None]
    assert values_of(with_nulls.slice(1)) == [{"l": None}, None]


@pytest.mark.skipif(not hasattr(pa, "uuid"), reason="this pyarrow has no uuid")
def test_uuids(path: Path) -> None:
    array = pa.array([bytes(range(16))], pa.binary(16))
    write(path, {"x": pa.ExtensionArray.from_storage(pa.uuid(), array)})
    assert records(path)[0].fields == {"x": "00010203-0405-0607-0809-0a0b0c0d0e0f"}


def test_bad_values_cost_no_other_rows(path: Path) -> None:
    bad = pa.array([b"a", b"\xff", b"c", b"d"]).view(pa.string())
    far = pa.array([0, 0, 2**62, 0], pa.timestamp("us", "UTC"))
    write(path, {"id": bad, "ts": far, "x": [1.0, 1.0, 1.0, float("nan")]})
    found = convert(path, set=["action=v"])
    assert found[0] == event(id="a", action="v", ts=0, metadata={"x": 1.0})
    assert found[1] == "the column 'id' is not UTF-8"
    assert found[2] == "the column 'ts' holds a time that is out of range: years 1 to 9999 UTC"
    assert isinstance(found[3], str)
    assert found[3].startswith("metadata")
    assert [record.row for record in records(path)] == [1, 2, 3, 4]
    assert records(path)[1].raw == '{"ts":"1970-01-01T00:00:00Z","x":1.0}'


def test_the_same_key_twice_in_a_map(path: Path) -> None:
    write(path, {"x": pa.array([[("k", 1), ("k", 2)], [("k", 3)]], pa.map_(pa.string(), pa.int32()))})
    found = records(path)
    assert found[0].error == "the column 'x' has the key 'k' twice in one object"
    assert found[1].fields == {"x": {"k": 3}}
    maps = pa.array([[("a", 1)], None, [("b", 2), ("c", 3)]], pa.map_(pa.string(), pa.int32()))
    assert values_of(maps.slice(1)) == [None, {"b": 2, "c": 3}]
    assert values_of(maps.slice(2)) == [{"b": 2, "c": 3}]
    assert values_of(maps.slice(1, 1)) == [None]
    assert values_of(maps.slice(3)) == []


def test_a_mapping_that_does_not_fit(path: Path) -> None:
    write(path, {"client": ["a"], "geo": [{"a": 1}]})
    for text, told in (("clint", "there is no column 'clint'"), ("geos.a", "there is no column 'geos.a'")):
        with pytest.raises(InputError, match=told):
            convert(path, map=[f"user_id={text}"], set=["action=v", "ts=2026-03-01T12:00:00Z"], id_from="row")


@pytest.mark.parametrize(
    "options", [{"delimiter": ","}, {"columns": ["a"]}, {"nulls": ["NULL"]}, {"skip_lines": 1}, {"trim": True}]
)
def test_options_of_text_files(path: Path, options: dict[str, Any]) -> None:
    write(path, {"a": [1]})
    with pytest.raises(InputError, match="options that read lines do not apply"):
        open_source(path, **options)


def test_files_that_are_no_whole_parquet(path: Path, tmp_path: Path) -> None:
    write(path, {"a": ["x" * 1000] * 10})
    data = path.read_bytes()
    for bad in (data[:-200], data[:9]):
        path.write_bytes(bad)
        with pytest.raises(InputError, match="is a Parquet file that is compressed, cut or in a pipe"):
            open_source(path)
    footer = int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[: -8 - footer] + b"\xff" * footer + data[-8:])
    with pytest.raises(InputError, match="is a damaged Parquet file"):
        open_source(path)
    with pytest.raises(InputError, match="standard input is a Parquet file that is compressed, cut or in a pipe"):
        open_source("-", format="parquet", stdin=io.BytesIO(data))
    (tmp_path / "x.csv").write_text("a\n")
    with pytest.raises(InputError, match="is not a Parquet file"):
        open_source(tmp_path / "x.csv", format="parquet")
    with pytest.raises(InputError, match="cannot open"):
        open_source(tmp_path / "none", format="parquet")


def test_damaged_pages_deliver_what_came_before(path: Path) -> None:
    table = pa.table({"a": list(range(4000))})
    pq.write_table(table, path, row_group_size=2000, use_dictionary=False, compression="zstd")
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(bytes(data))
    found = []
    with open_source(path) as source, pytest.raises(InputError, match="is damaged after row 2000") as caught:
        for record in source:
            found.append(record.fields)
    assert found == [{"a": n} for n in range(2000)]
    assert caught.value.remedy


def test_without_pyarrow_the_error_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, {"a": [1]})

    def missing(name: str, package: str | None = None) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match="is a Parquet file, and pyarrow is not installed") as caught:
        open_source(path)
    assert "pip install 'refold[parquet]'" in str(caught.value.remedy)


@pytest.mark.exhaustive
def test_memory_stays_bounded(path: Path) -> None:
    """Also if the whole file is one row group."""
    rows = 200_000
    text = [f"{n:08}" * 12 for n in range(rows)]
    pq.write_table(pa.table({"a": text}), path, row_group_size=rows, use_dictionary=False, compression="none")
    del text
    before = pa.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    try:
        with open_source(path) as source:
            for record in source:
                if record.row % 1000 == 0:
                    most = max(most, pa.total_allocated_bytes() - before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 19 << 20
    assert peak < 8 << 20
    assert most < 8 << 20
