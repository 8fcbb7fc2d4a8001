"""Records become events as the mapping says, and nothing is dropped or made up on the way."""

import io
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from refold.errors import InputError
from refold.model.event.source_event import SourceEvent
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source

DATA = Path(os.environ.get("REFOLD_TEST_DATA", Path(__file__).parents[3] / "../shared/data"))


def convert(text: str, *, form: str = "csv", name: str = "shop", **options: Any) -> list[SourceEvent | str]:
    with open_source("-", format=form, name=name, stdin=io.BytesIO(text.encode())) as source:  # type: ignore[arg-type]
        mapper = Mapper(Mapping.parse(**options), source)
        return [mapper(record) for record in source]


def event(**fields: Any) -> SourceEvent:
    return SourceEvent.model_validate(fields)


NOON = datetime(2020, 1, 31, 12, tzinfo=UTC)


def test_csv_by_map() -> None:
    found = convert(
        "client_id,event,timestamp,price,note\n7,view,2020-01-31 13:00:00,1.10,\n,buy,2020-01-31 13:00:00,,x\n",
        map=["user_id=client_id,action=event,ts=timestamp,metadata.cost=price"],
        timezone="Europe/Berlin",
        id_from="row",
    )
    assert found == [
        event(id="shop:1", user_id="7", action="view", ts=NOON, metadata={"cost": "1.10"}),
        event(id="shop:2", user_id=None, action="buy", ts=NOON, metadata={"note": "x"}),
    ]


def test_csv_by_name() -> None:
    """A column that is called like a field is that field, unless --map has a use for it."""
    text = 'id,action,ts,version,metadata\na,view,2020-01-31T12:00:00Z,2,"{""x"": 1.10}"\n'
    assert convert(text) == [event(id="a", action="view", ts=NOON, version=2, metadata={"x": Decimal("1.10")})]
    assert convert(text, map=["metadata.app=version,user_id=id"], id_from="row") == [
        event(id="shop:1", user_id="a", action="view", ts=NOON, metadata={"x": Decimal("1.10"), "app": "2"})
    ]


def test_what_options_replace_stays_in_metadata() -> None:
    found = convert("id,action,ts\n7,view,0\n", set=["action=seen"], id_from="row", ts_format="epoch_ms")
    assert found == [event(id="shop:1", action="seen", ts=0, metadata={"id": "7", "action": "view"})]


def test_constants() -> None:
    found = convert(
        "id,ts\na,0\n",
        set=["action=view,user_id=u,version=3,metadata.shop=web"],
        ts_format="epoch_s",
    )
    assert found == [event(id="a", user_id="u", action="view", ts=0, version=3, metadata={"shop": "web"})]
    found = convert("id\na\n", set=["action=view", "ts=2020-01-31T12:00:00Z", 'metadata={"a": 1.10}', "metadata.b=2"])
    assert found == [event(id="a", action="view", ts=NOON, metadata={"a": Decimal("1.10"), "b": "2"})]


def test_ids_from_columns_leave_the_columns_where_they_are() -> None:
    found = convert("order,line,ts\na:1,2,0\n,,0\n", set=["action=buy"], id_from="order,line", ts_format="epoch_ms")
    assert found == [
        event(id="a%3A1:2", action="buy", ts=0, metadata={"order": "a:1", "line": "2"}),
        "id: order, line (of --id-from) are empty",
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            "a,view,2020-01-31,1",
            "ts: '2020-01-31' has no offset from UTC: name its time zone with --timezone",
        ),
        ("a,view,,1", "ts: the column 'ts' is empty"),
        ("a,,2020-01-31T12:00:00Z,1", "action: the column 'action' is empty"),
        (",view,2020-01-31T12:00:00Z,1", "id: the column 'id' is empty"),
        (
            "a,view,2020-01-31T12:00:00Z,2.1.3",
            "version: must be a whole number from 1 to 32767, not '2.1.3'"
            "; if the column has another meaning: --map metadata.version=version",
        ),
        (
            "a,view,2020-01-31T12:00:00Z,0",
            "version: must be a whole number from 1 to 32767, not 0"
            "; if the column has another meaning: --map metadata.version=version",
        ),
        (f"{'a' * 256},view,2020-01-31T12:00:00Z,1", "id: must have 1 to 255 characters, not 256"),
        ("a,view", "the row has 2 values for 4 columns"),
    ],
)
def test_rows_that_are_no_events(row: str, reason: str) -> None:
    good = "a,view,2020-01-31T12:00:00Z,"
    found = convert(f"id,action,ts,version\n{row}\n{good}\n")
    assert found == [reason, event(id="a", action="view", ts=NOON)]


def test_metadata_column_that_is_no_object() -> None:
    found = convert('id,action,ts,metadata,x\na,v,0,[],\na,v,0,{,\na,v,0,"{""x"": 1}",1\n', ts_format="epoch_ms")
    assert [str(reason)[:40] for reason in found] == [
        "metadata: must be a JSON object, not an ",
        "metadata: is not valid JSON: Expecting p",
        "metadata: would get 'x' twice: map that ",
    ]


@pytest.mark.parametrize(
    ("header", "options", "message", "remedy"),
    [
        ("client_id,event", {"map": ["user_id=clientid"]}, "did you mean 'client_id'?", "client_id, event"),
        (
            "client_id;event",
            {"map": ["user_id=client_id"]},
            "there is no column 'client_id'",
            "--delimiter ';'",
        ),
        ("id,action,time", {}, "gives the events a value for ts", "--map ts=COLUMN"),
        ("id,event,ts", {}, "gives the events a value for action", "--set action=VALUE"),
        ("action,ts", {}, "gives the events a value for id", "--id-from row"),
        ("action,ts", {"id_from": "order"}, "there is no column 'order' for --id-from", "action, ts"),
        (
            "id,ts,action,a,b",
            {"map": ["metadata.a=b"]},
            "metadata would get 'a' twice",
            "--map metadata.OTHER=a",
        ),
        ("id,ts,action,a", {"set": ["metadata.a=b"]}, "metadata would get 'a' twice", ""),
        ("id,ts,action", {"map": ["metadata.a=b"]}, "there is no column 'b' for --map metadata.a=…", ""),
        ("id,ts", {"set": ["action=" + "x" * 256]}, "--set action: must have 1 to 255 characters", ""),
        ("id,action", {"set": ["ts=soon"]}, "--set ts: 'soon' is not", ""),
        ("id,action,ts", {"set": ["version=two"]}, "--set version: must be", ""),
        ("id,action,ts", {"set": ["metadata=[]"]}, "--set metadata: must be", ""),
    ],
)
def test_files_that_the_mapping_does_not_fit(header: str, options: Any, message: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        convert(header + "\n", **options)
    assert message in str(caught.value)
    assert remedy in (caught.value.remedy or "")


def test_rows_of_standard_input_need_a_name() -> None:
    with pytest.raises(InputError) as caught:
        convert("ts,action\n", name="-", id_from="row")
    assert caught.value.remedy == "Add --source NAME."


def lines(*records: str) -> str:
    return "\n".join(records) + "\n"


def test_json_lines_have_the_shape_of_events() -> None:
    found = convert(
        lines(
            '{"id": "a", "action": "view", "ts": "2020-01-31T12:00:00Z", "metadata": {"x": 1.10}}',
            '{"id": "b", "action": "view", "ts": 1580472000000, "colour": "red"}',
            '{"action": "view", "ts": 1580472000000}',
            '{"id": 7, "action": "view", "ts": 1580472000000}',
            '{"id": "c", "id": "d"}',
        ),
        form="jsonl",
    )
    assert found == [
        event(id="a", action="view", ts=NOON, metadata={"x": Decimal("1.10")}),
        "unknown field 'colour': put it into metadata",
        "id: is missing. Choose --id-from row, --id-from COLUMN,… or --map id=COLUMN",
        "id: must be a string, not a number",
        "the line has the key 'id' twice in one object: keep one",
    ]


def test_events_in_files_may_spell_their_times_otherwise() -> None:
    texts = ("2020-01-31t12:00:00z", "2020-01-31 12:00:00 UTC", "20200131T120000Z", "2020-01-31T12:00:00,0Z")
    for text in texts:
        assert convert(f'{{"id": "a", "action": "v", "ts": "{text}"}}', form="jsonl") == [
            event(id="a", action="v", ts=NOON)
        ]
    assert convert('{"id": "a", "action": "v", "ts": "20200131T120000"}', form="jsonl") == [
        "ts: '20200131T120000' has no offset from UTC: name its time zone with --timezone"
    ]


def test_digits_of_nanoseconds_pass_no_float() -> None:
    [found] = convert('{"id": "a", "action": "v", "ts": 1772442000123456789}', form="jsonl", ts_format="epoch_ns")
    assert isinstance(found, SourceEvent)
    assert found.ts == datetime(2026, 3, 2, 9, 0, 0, 123456, tzinfo=UTC)


def test_json_lines_with_options_but_no_map_keep_their_shape() -> None:
    found = convert(
        lines(
            '{"ts": "2020-01-31 13:00:00"}',
            '{"ts": 1580472000000, "metadata": {"a": 1}}',
            '{"ts": 1580472000000, "metadata": {"shop": 1}}',
            '{"ts": 1580472000000, "metadata": []}',
            '{"ts": 1580472000000, "id": "x"}',
            '{"ts": 1580472000000, "action": "view"}',
            '{"ts": 1580472000000, "colour": "red"}',
        ),
        form="jsonl",
        set=["action=seen,metadata.shop=web"],
        timezone="Europe/Berlin",
        id_from="row",
    )
    assert found == [
        event(id="shop:1", action="seen", ts=NOON, metadata={"shop": "web"}),
        event(id="shop:2", action="seen", ts=NOON, metadata={"a": 1, "shop": "web"}),
        "metadata: would get 'shop' twice: map that column to another key",
        "metadata: must be an object",
        "id: the record has an id, but --id-from is given, too",
        "action: the record has it, but --set action is given, too",
        "unknown field 'colour': put it into metadata",
    ]


def test_json_lines_by_map() -> None:
    found = convert(
        lines(
            '{"user": 7, "event": "view", "id": "a", "ts": 1580472000000, "price": 1.10, "gone": null}',
            '{"user": null, "event": "view", "id": 8, "ts": 1580472000000, "extra": {"a": []}}',
            '{"event": "view", "id": "c", "ts": 1580472000000}',
            '{"user": true, "event": "view", "id": "d", "ts": 1580472000000}',
            '{"user": "u", "event": "view", "ts": 1580472000000}',
        ),
        form="jsonl",
        map=["user_id=user,action=event,metadata.cost=price"],
    )
    assert found == [
        event(id="a", user_id="7", action="view", ts=NOON, metadata={"cost": Decimal("1.10"), "gone": None}),
        event(id="8", action="view", ts=NOON, metadata={"extra": {"a": []}}),
        "there is no field 'user' for --map user_id=…",
        "user_id: must be a string, not a boolean",
        "no field or option gives the events a value for id",
    ]


def test_json_records_of_ever_new_shapes_stay_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.sources.files.mapper._MAX_PLANS", 2)
    text = lines(*(f'{{"i": "{n}", "action": "v", "ts": 1580472000000, "k{n % 5}": {n}}}' for n in range(20)))
    assert convert(text, form="jsonl", map=["id=i"]) == [
        event(id=str(n), action="v", ts=NOON, metadata={f"k{n % 5}": n}) for n in range(20)
    ]


@pytest.mark.parametrize("options", [{}, {"timezone": "UTC"}, {"map": ["metadata.n=n"]}])
def test_a_number_that_is_hardly_milliseconds_is_not_taken_for_them(options: Any) -> None:
    """Seconds, days of a spreadsheet and the digits of a date would all be in January 1970, or in the year 2612."""
    makes = {
        "1580472000": "epoch_s makes it 2020-01-31",
        "1580472000.25": "epoch_s makes it 2020-01-31",
        "43861": "excel makes it 2020-01-31",
        "43861.5": "excel makes it 2020-01-31",
        "20200131": "%Y%m%d makes it 2020-01-31",
        "202001311200": "%Y%m%d%H%M makes it 2020-01-31",
        "20200131120000": "%Y%m%d%H%M%S makes it 2020-01-31",
        "1580472000000000": "epoch_us makes it 2020-01-31",
        "1580472000000000000": "epoch_ns makes it 2020-01-31",
    }
    records = [f'{{"id": "{at}", "action": "v", "ts": {ts}, "metadata": {{}}}}' for at, ts in enumerate(makes)]
    if "map" in options:
        records = [record.replace('"metadata": {}', '"n": 1') for record in records]
    for reason, form in zip(convert(lines(*records), form="jsonl", **options), makes.values(), strict=True):
        assert isinstance(reason, str)
        assert reason.startswith("ts: ")
        assert reason.endswith(f" name its format (--ts-format {form})")


def test_what_a_number_is_said_to_be_it_is() -> None:
    record = '{{"id": "a", "action": "v", "ts": {}}}'
    for ts, form in (("0", "epoch_ms"), ("1580472000", "epoch_s"), ("43861.5", "excel")):
        [found] = convert(record.format(ts), form="jsonl", ts_format=form, timezone="UTC")
        assert found == event(id="a", action="v", ts=0 if ts == "0" else NOON)
    # The years between are those of events.
    for ts in ("631152000000", "7258118399999"):
        assert convert(record.format(ts), form="jsonl") == [event(id="a", action="v", ts=int(ts))]
    for ts in ("631151999999", "7258118400000", "-1", "0"):
        assert "as milliseconds: name its format" in str(convert(record.format(ts), form="jsonl")[0])


def test_a_version_of_something_else() -> None:
    """A column fills a field because it is called like it; what it holds may tell that it means something else."""
    text = "id,action,ts,version,metadata\na,v,2020-01-31T12:00:00Z,2.14.1,gold\n"
    record = '{"id": "a", "action": "v", "ts": 1580472000000, "version": "2.14.1"}'
    assert [
        *convert(text),
        *convert(text, map=["metadata.app=version"]),
        *convert(record, form="jsonl"),
        *convert(record.replace('"2.14.1"', "2.14"), form="jsonl", map=["metadata.x=x"]),
        *convert(text, map=["version=version"]),
    ] == [
        "version: must be a whole number from 1 to 32767, not '2.14.1'"
        "; if the column has another meaning: --map metadata.version=version",
        "metadata: is not valid JSON: Expecting value (column 1)"
        "; if the column has another meaning: --map metadata.metadata=metadata",
        "version: must be a whole number from 1 to 32767, not a string"
        "; if the column has another meaning: --map metadata.version=version",
        "version: must be a whole number from 1 to 32767, not 2.14"
        "; if the column has another meaning: --map metadata.version=version",
        "version: must be a whole number from 1 to 32767, not '2.14.1'",
    ]
    asis = {"metadata": {"version": "2.14.1", "metadata": "gold"}}
    assert convert(text, map=["metadata.version=version,metadata.metadata=metadata"]) == [
        event(id="a", action="v", ts=NOON, **asis)
    ]
    assert convert(record, form="jsonl", map=["metadata.version=version"]) == [
        event(id="a", action="v", ts=NOON, metadata={"version": "2.14.1"})
    ]


@pytest.mark.data
def test_simple_shop() -> None:
    path = DATA / "simple_shop" / "simple-onlineshop.csv"
    if not path.exists():
        pytest.skip(f"no real event data at {path}")
    options = {"map": ["user_id=client_id,action=event,ts=timestamp"], "timezone": "UTC", "id_from": "row"}
    with open_source(path) as source:
        mapper = Mapper(Mapping.parse(**options), source)  # type: ignore[arg-type]
        events = [e for record in source if isinstance(e := mapper(record), SourceEvent)]
    assert len(events) == len({e.id for e in events}) == 32_283
    assert len({e.user_id for e in events}) == 3_751
    assert len({e.action for e in events}) == 12
    assert len({e.ts.date() for e in events}) == 181
    assert events[0].id == "simple-onlineshop.csv:1"
    assert events[0].ts == datetime(2019, 11, 1, 17, 59, 13, 273932, tzinfo=UTC)


@pytest.mark.data
def test_cdnow() -> None:
    path = DATA / "cdnow" / "CDNOW_master.txt.gz"
    if not path.exists():
        pytest.skip(f"no real event data at {path}")
    mapping = Mapping.parse(
        map=["user_id=customer_id,ts=date"],
        set=["action=purchase"],
        ts_format="%Y%m%d",
        timezone="UTC",
        id_from="row",
    )
    with open_source(path, delimiter="whitespace") as source:
        mapper = Mapper(mapping, source)
        events = [e for record in source if isinstance(e := mapper(record), SourceEvent)]
    assert len(events) == len({e.id for e in events}) == 69_659
    assert len({e.user_id for e in events}) == 23_570
    assert len({e.ts for e in events}) == 546
    assert events[-1].metadata == {"number_of_cds": "2", "dollar_value": "42.96"}
