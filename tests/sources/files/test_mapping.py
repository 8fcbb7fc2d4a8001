"""The options of a mapping are understood, or refused with what to do instead."""

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from refold.errors import InputError
from refold.sources.files.identity import IdFrom
from refold.sources.files.mapping import Mapping


def test_parse() -> None:
    mapping = Mapping.parse(
        map=["user_id=client_id, action=event", 'ts=timestamp,"metadata.name=last, first"'],
        set=["version=2", "metadata.shop=a=b"],
        timezone="Europe/Berlin",
        ts_format="%Y%m%d",
        id_from="row",
    )
    assert mapping == Mapping(
        map={"user_id": "client_id", "action": "event", "ts": "timestamp", "metadata.name": "last, first"},
        constants={"version": "2", "metadata.shop": "a=b"},
        timezone=ZoneInfo("Europe/Berlin"),
        ts_format="%Y%m%d",
        id_from=IdFrom(),
    )
    assert Mapping.parse() == Mapping()
    assert Mapping.parse(timezone="UTC").timezone is UTC


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"map": ["userid=x"]}, "events have no field 'userid' (did you mean 'user_id'?)"),
        ({"map": ["metadata.=x"]}, "events have no field 'metadata.'"),
        ({"set": ["color=red"]}, "events have no field 'color'"),
        ({"map": ["user_id"]}, "--map 'user_id' is not of the form FIELD=COLUMN"),
        ({"set": ["=x"]}, "--set '=x' is not of the form FIELD=VALUE"),
        ({"map": ["version="]}, "--map version= names no column"),
        ({"set": ["action= "]}, "--set action= names no value"),
        ({"map": ["=x"]}, "is not of the form"),
        ({"set": ["action="]}, "--set action= names no value"),
        ({"map": ["ts=a", "ts=b"]}, "--map gives ts twice"),
        ({"map": ["ts=a"], "set": ["ts=b"]}, "ts is in --map and in --set"),
        ({"set": ["id=x"]}, "--set id gives every event the same id"),
        ({"map": ["id=x"], "id_from": "row"}, "exclude each other"),
        ({"id_from": "a,,b"}, "empty name"),
        (
            {"timezone": "Europe/Berlinn"},
            "unknown time zone 'Europe/Berlinn' (did you mean 'Europe/Berlin'?)",
        ),
        ({"timezone": "europe"}, "unknown time zone"),
        ({"timezone": "../etc/passwd"}, "unknown time zone"),
        ({"timezone": ""}, "unknown time zone"),
        ({"ts_format": "%Y-%m-%d"}, "--ts-format: the format '%Y-%m-%d' has no %z"),
        ({"ts_format": "%Y %Q", "timezone": "UTC"}, "unknown directive %Q"),
    ],
)
def test_refuses(options: dict[str, str | list[str]], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Mapping.parse(**options)  # type: ignore[arg-type]
    assert message in str(caught.value)
