"""The rules of a valid event, from the shared table and where JSON text cannot go."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from refold.model.event.source_event import Answer, SourceEvent, parse_json_line, reasons
from tests.support import event_cases

GOOD: dict[str, Any] = {"id": "a", "action": "view", "ts": 0}


def judge(value: Any) -> SourceEvent | str:
    try:
        return SourceEvent.model_validate(value)
    except ValidationError as error:
        return reasons(error)


def judge_line(raw: str) -> SourceEvent | str:
    try:
        return judge(parse_json_line(raw))
    except ValueError as error:
        return f"the line {error}"


@pytest.mark.parametrize("case", event_cases.load(), ids=str)
def test_cases(case: event_cases.EventCase) -> None:
    found = judge_line(case.raw)
    if case.answer == "accepted":
        assert isinstance(found, SourceEvent), found
    else:
        assert isinstance(found, str), found
        assert case.reason is None or case.reason in found
        assert "\n" not in found
        assert len(found) < 300


def test_cases_have_distinct_names() -> None:
    names = [case.name for case in event_cases.load()]
    assert len(names) == len(set(names)) > 150


def test_defaults() -> None:
    event = SourceEvent.model_validate(GOOD)
    assert (event.user_id, event.metadata, event.version) == (None, {}, 1)
    assert event.ts == datetime(1970, 1, 1, tzinfo=UTC)
    assert event.ts.tzinfo is UTC


def test_frozen() -> None:
    event = SourceEvent.model_validate(GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        event.id = "b"


def test_metadata_is_a_copy() -> None:
    given = {"a": 1}
    event = SourceEvent.model_validate({**GOOD, "metadata": given})
    given["b"] = 2
    assert event.metadata == {"a": 1}


class Nowhere(tzinfo):
    """A tzinfo that knows no offset: its datetimes are naive all the same."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


class Nanoseconds(datetime):
    """Like pandas.Timestamp: more digits in its text than a datetime has."""

    def isoformat(self, *args: Any, **kwargs: Any) -> str:
        return super().isoformat(*args, **kwargs).replace("+", "789+")


class NotATime(datetime):
    """Like pandas.NaT, which is a datetime by type only."""

    def isoformat(self, *args: Any, **kwargs: Any) -> str:
        return "NaT"


EAST = timezone(timedelta(hours=5))


def test_datetimes_become_utc() -> None:
    moment = datetime(2020, 1, 31, 12, 0, 0, 123456, tzinfo=EAST)
    event = SourceEvent.model_validate({**GOOD, "ts": moment})
    assert event.ts == moment
    assert event.ts.tzinfo is UTC
    subclass = Nanoseconds(2020, 1, 31, 12, 0, 0, 123456, tzinfo=EAST)
    event = SourceEvent.model_validate({**GOOD, "ts": subclass})
    assert type(event.ts) is datetime
    assert event.ts == moment


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ts": datetime(2020, 1, 1)}, "ts: '2020-01-01T00:00:00' has no offset from UTC"),
        ({"ts": datetime(2020, 1, 1, tzinfo=Nowhere())}, "has no offset"),
        ({"ts": datetime(1, 1, 1, tzinfo=EAST)}, "out of range"),
        ({"ts": NotATime(2020, 1, 1, tzinfo=UTC)}, "ts: 'NaT' is not"),
        ({"ts": 10**5000}, "ts: the number is out of range"),
        ({"version": 10**5000}, "version: must be a whole number from 1 to 32767, not a number"),
        ({"version": float("nan")}, "version: must be a whole number from 1 to 32767, not a number"),
        ({"ts": Decimal(0)}, "ts: must be"),
        ({"ts": b"2020-01-31T12:00:00Z"}, "ts: must be"),
        ({"id": b"a"}, "id: must be a string, not a Python bytes"),
        ({"id": "a\0"}, "id: contains a NUL character"),
        ({"action": "\ud800"}, r"action: contains a lone surrogate (\ud800)"),
        ({"version": Decimal(1)}, "version: must be a whole number"),
        ({"version": True}, "not a boolean"),
        ({"version": Decimal("NaN")}, "not a number"),
        ({"metadata": [("a", 1)]}, "metadata: must be an object, not an array"),
        ({"metadata": {1: 2}}, "metadata: has a key that is a number"),
        ({"metadata": {"a": {None: 2}}}, "metadata: has a key that is null"),
        ({"metadata": {"a": datetime(2020, 1, 1)}}, "metadata: holds a Python datetime"),
        ({"metadata": {"a": {1, 2}}}, "(at a)"),
        ({"metadata": {"a": [0, {"b": float("nan")}]}}, "(at a[1].b)"),
        ({"Action": "x"}, "unknown field 'Action': did you mean 'action'?"),
        ({"colour": "x"}, "unknown field 'colour': put it into metadata"),
        ({"\ud800": "x"}, r"unknown field '\ud800'"),
    ],
)
def test_what_json_text_cannot_hold(fields: dict[str, Any], reason: str) -> None:
    found = judge({**GOOD, **fields})
    assert isinstance(found, str)
    assert reason in found


def test_reasons_name_every_field_in_one_line() -> None:
    found = judge({"id": 7, "action": "", "ts": "soon", "metadata": [], "version": 0, "usr_id": "x"})
    assert isinstance(found, str)
    assert [part.split(" ")[0] for part in found.split("; ")] == [
        "id:", "action:", "ts:", "metadata:", "version:", "unknown",
    ]  # fmt: skip
    assert found.endswith("unknown field 'usr_id': did you mean 'user_id'?")


def test_not_an_object() -> None:
    assert judge(["a"]) == "an event must be an object, not an array"


def test_has_a_json_schema() -> None:
    schema = SourceEvent.model_json_schema()
    assert set(schema["required"]) == {"id", "action", "ts"}
    assert schema["additionalProperties"] is False


def test_answers_are_words() -> None:
    assert [str(answer) for answer in Answer] == ["accepted", "duplicate", "conflict", "invalid"]
