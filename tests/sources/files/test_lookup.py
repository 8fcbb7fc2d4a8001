"""Values are found in nested objects and in the first of several places, and nowhere else."""

import io
from typing import Any

import pytest

from refold.errors import InputError
from refold.model.event.source_event import SourceEvent
from refold.sources.files.lookup import Lookup, value_at
from refold.sources.files.mapper import Mapper
from refold.sources.files.mapping import Mapping
from refold.sources.files.readers import open_source


def convert(text: str, *, form: str = "jsonl", **options: Any) -> list[SourceEvent | str]:
    with open_source("-", format=form, name="shop", stdin=io.BytesIO(text.encode())) as source:  # type: ignore[arg-type]
        mapper = Mapper(Mapping.parse(ts_format="epoch_s", **options), source)
        return [mapper(record) for record in source]


def event(**fields: Any) -> SourceEvent:
    return SourceEvent.model_validate({"ts": 0, **fields})


@pytest.mark.parametrize(
    ("fields", "path", "expected"),
    [
        ({"a": {"b": 1}}, "a.b", (1,)),
        ({"a.b": 2, "a": {"b": 1}}, "a.b", (2,)),
        ({"a": {"b.c": 3, "b": {"c": 1}}}, "a.b.c", (3,)),
        ({"a.b": {"c": 4}, "a": {"b": {"c": 1}}}, "a.b.c", (4,)),
        ({"a.b": {"d": 4}, "a": {"b": {"c": 1}}}, "a.b.c", (1,)),
        ({"a.b": "text", "a": {"b": {"c": 1}}}, "a.b.c", (1,)),
        ({"a": {"b": None}}, "a.b", (None,)),
        ({"a": {}}, "a.b", None),
        ({"a": [{"b": 1}]}, "a.b", None),
        ({"a": "b"}, "a.b", None),
        ({"": {"": 1}}, ".", None),
    ],
)
def test_a_path(fields: dict[str, Any], path: str, expected: tuple[object] | None) -> None:
    assert value_at(fields, path) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"a": 1, "b": 2}, ("a", 1)),
        ({"a": None, "b": 2}, ("b", 2)),
        ({"a": "", "b": 2}, ("b", 2)),
        ({"b": 0}, ("b", 0)),
        ({"a": False, "b": 2}, ("a", False)),
        ({"a": None, "b": "", "c": {"d": 3}}, ("c.d", 3)),
        ({"a|b|c.d": 4, "a": 1}, ("a|b|c.d", 4)),
        ({"a": None}, None),
    ],
)
def test_the_first_of_several(fields: dict[str, Any], expected: tuple[str, object] | None) -> None:
    assert Lookup.parse("a | b|c.d").find(fields) == (expected if "a|b|c.d" not in fields else ("a", 1))
    assert Lookup.parse("a|b|c.d").find(fields) == expected


def test_nested_fields_of_json() -> None:
    found = convert(
        '{"what": "buy", "at": 0, "actor": {"id": 7, "name": "Ann"}, "source": {"lsn": 12}}\n'
        '{"what": "buy", "at": 0, "actor": null, "source": {"lsn": 13}}\n'
        '{"what": "buy", "at": 0, "actor.id": "x", "actor": {"id": 7}, "source": {"lsn": 14}}\n'
        '{"what": "buy", "at": 0, "source": {}}\n',
        map=["user_id=actor.id,action=what,ts=at,metadata.lsn=source.lsn"],
        id_from="source.lsn",
    )
    assert found == [
        event(
            id="12", user_id="7", action="buy",
            metadata={"actor": {"id": 7, "name": "Ann"}, "source": {"lsn": 12}, "lsn": 12},
        ),
        event(id="13", action="buy", metadata={"actor": None, "source": {"lsn": 13}, "lsn": 13}),
        event(id="14", user_id="x", action="buy", metadata={"actor": {"id": 7}, "source": {"lsn": 14}, "lsn": 14}),
        "id: 'source.lsn' (of --id-from) has no value",
    ]  # fmt: skip


def test_what_an_event_must_have_is_not_made_up() -> None:
    found = convert(
        '{"e": {"name": "view", "at": 0}}\n{"e": {"at": 0}}\n{"e": {"name": null, "at": 0}}\n{"e": {"name": "view"}}\n',
        map=["action=e.name", "ts=e.at"],
        id_from="row",
    )
    assert found[0] == event(id="shop:1", action="view", metadata={"e": {"name": "view", "at": 0}})
    assert found[1] == "action: the record has no value for 'e.name'"
    assert str(found[2]).startswith("action: ")
    assert found[3] == "ts: the record has no value for 'e.at'"


def test_whole_metadata_in_an_object() -> None:
    assert convert(
        '{"ts": 0, "p": {"props": {"x": 1}}}\n{"ts": 0}\n',
        map=["metadata=p.props"], set=["action=view"], id_from="row",
    ) == [
        event(id="shop:1", action="view", metadata={"x": 1, "p": {"props": {"x": 1}}}),
        event(id="shop:2", action="view"),
    ]  # fmt: skip


def test_the_choice_is_made_by_each_record_and_loses_nothing() -> None:
    found = convert(
        '{"id": "1", "ts": 0, "userId": "u", "anonymousId": "a"}\n'
        '{"id": "2", "ts": 0, "userId": null, "anonymousId": "a"}\n'
        '{"id": "3", "ts": 0, "userId": "", "anonymousId": 9}\n'
        '{"id": "4", "ts": 0}\n',
        map=["user_id=userId|anonymousId"],
        set=["action=view"],
    )
    assert found == [
        event(id="1", user_id="u", action="view", metadata={"anonymousId": "a"}),
        event(id="2", user_id="a", action="view", metadata={"userId": None}),
        event(id="3", user_id="9", action="view", metadata={"userId": ""}),
        event(id="4", action="view"),
    ]


def test_the_choice_in_csv() -> None:
    options: dict[str, Any] = {"set": ["action=view"], "id_from": "row", "form": "csv"}
    assert convert("ts,a.b,c\n0,u,x\n0,,x\n0,,\n", map=["user_id=none|a.b|c"], **options) == [
        event(id="shop:1", user_id="u", action="view", metadata={"c": "x"}),
        event(id="shop:2", user_id="x", action="view"),
        event(id="shop:3", action="view"),
    ]
    assert convert("t1,t2\n,0\n,\n", map=["ts=t1|t2"], **options) == [
        event(id="shop:1", action="view"),
        "ts: the record has no value for 't1|t2'",
    ]
    with pytest.raises(InputError, match=r"there is no column 'x' or 'y' for --map user_id=…"):
        convert("ts,a\n0,1\n", map=["user_id=x|y"], **options)
    with pytest.raises(InputError, match=r"there is no column 'a\.b' for --map user_id=…"):
        convert("ts,a\n0,1\n", map=["user_id=a.b"], **options)


def test_a_key_of_metadata_is_not_overwritten() -> None:
    options: dict[str, Any] = {"map": ["metadata.b=a|b"], "set": ["action=view"], "id_from": "row"}
    assert convert('{"ts": 0, "a": 1, "b": 2}\n{"ts": 0, "b": 2}\n{"ts": 0, "a": 1, "b": null}\n', **options) == [
        "metadata: would get 'b' twice: map that column to another key",
        event(id="shop:2", action="view", metadata={"b": 2}),
        event(id="shop:3", action="view", metadata={"b": 1}),
    ]
