"""What `quick` accepts, SourceEvent accepts too, and it means the same; and ordinary events are accepted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.model.event.source_event import SourceEvent, parse_json_line
from refold.model.event.wire import WireEvent, quick, wire
from tests.support import event_cases

ORDINARY = {
    "id": "e-1",
    "user_id": "Zoë Müller",
    "action": "view",
    "ts": "2026-03-01T09:00:00.5+01:00",
    "metadata": {"page": "/p/1", "amount": 7, "tags": ["a", None, {"x": 1.5}]},
    "version": 2,
}


class Text(str):
    """A text that is not quite one."""


texts = st.one_of(
    st.text(max_size=3),
    st.sampled_from(["u", "a b", "a\tb", "", "\0", "\ud800", "\\", "é", "x" * 255, "x" * 256, Text("sub")]),
)
times = st.one_of(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=9, minutes=30)), None])),
    st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    st.from_regex(
        r"\A(?:[0-9]{4}|9999|0001)-(?:[01][0-9]|02)-(?:[0-3][0-9]|29|31)[T t](?:[0-2][0-9]):[0-5][0-9]"
        r"(?::[0-5][0-9](?:[.,][0-9]{1,8})?)?"
        r"(?:Z|z|[+-](?:[01][0-9])(?::?[0-5][0-9])?)?\Z"
    ),
    st.integers(-(10**15), 10**15),
    st.sampled_from(
        [0, -62_135_596_800_000, 253_402_300_799_999, 253_402_300_800_000, True, 1.5, None, "9999-12-31T23:59:59-01:00"]
    ),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts,
    st.sampled_from([10**2500, Decimal("1.10"), Decimal("NaN"), 5e-324, datetime(2026, 1, 1), b"x", "9" * 300]),
)  # fmt: skip
metadata = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(texts | st.integers(), inner, max_size=3), st.tuples(inner)
    ),
    max_leaves=6,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "id": texts | scalars,
        "user_id": texts | scalars,
        "action": texts | scalars,
        "ts": times,
        "metadata": st.dictionaries(texts, metadata, max_size=3) | metadata,
        "version": st.integers(-1, 3) | scalars,
        "usr": texts,
    },
)


def changed(spoilt: dict[str, Any], kept: set[str]) -> dict[str, Any]:
    return {**{name: value for name, value in ORDINARY.items() if name in kept}, **spoilt}


odd_events = st.builds(changed, fields, st.sets(st.sampled_from(sorted(ORDINARY)), min_size=3).map(set))


def meaning(event: WireEvent) -> tuple[object, ...]:
    return event._replace(ts=str(datetime.fromisoformat(event.ts).astimezone(UTC)))


def agree(offered: dict[str, Any]) -> bool:
    """Whether `quick` accepts it; if so, SourceEvent must mean the same."""
    found = quick([offered])
    if found is None:
        return False
    assert meaning(found[0]) == meaning(wire(SourceEvent.model_validate(offered)))
    return True


@given(odd_events)
def test_whatever_it_accepts_is_valid(offered: dict[str, Any]) -> None:
    agree(offered)


def test_the_cases_of_all_doors() -> None:
    accepted = 0
    for case in event_cases.load():
        try:
            offered = parse_json_line(case.raw)
        except ValueError:
            continue
        accepted += agree(offered)
        if case.answer == "invalid":
            assert quick([offered]) is None, case.name
    assert accepted > 20


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ts": "2026-02-28 09:00:00Z"},
        {"ts": "2024-02-29T23:59:59.999999-14:59"},
        {"ts": 1_767_225_600_000},
        {"ts": datetime(2026, 1, 1, tzinfo=UTC)},
        {"user_id": None},
        {"metadata": {}},
    ],
)
def test_ordinary_events_are_accepted(change: dict[str, Any]) -> None:
    offered = {**ORDINARY, **change}
    assert agree(offered)
    found = quick([offered])
    assert found is not None
    assert json.loads(found[0].metadata) == offered["metadata"]


@pytest.mark.parametrize(
    "change",
    [
        {"ts": "2026-02-29T09:00:00Z"},
        {"ts": "2026-03-01T09:00:00.1234567Z"},
        {"ts": "9999-12-31T23:59:59-01:00"},
        {"version": True},
        {"user_id": "\ud800"},
        {"metadata": {"a": {"b\ud800": 1}}},
        {"metadata": {"a": "\0"}},
        {"metadata": {1: 1}},
        {"metadata": {"a": (1,)}},
        {"metadata": {"a": float("nan")}},
        {"usr": "u"},
    ],
)
def test_it_leaves_the_odd_ones_alone(change: dict[str, Any]) -> None:
    assert quick([{**ORDINARY, **change}]) is None
