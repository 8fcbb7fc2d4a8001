"""Bodies keep what Postgres wrote, and the same rows have the same id."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st

from refold.sinks.kinds.webhook.body import body, message_id, ping_body
from refold.sinks.receiver import Change, Shape, Version
from tests.sinks.kinds.webhook.conftest import SHAPE, gone, row

NOW = datetime(2026, 11, 29, 12, 0, 0, 123456, tzinfo=UTC)
V = Version(1, 17)
LONG = "12345678901234567890.000001"
texts = st.text(st.characters(exclude_categories=["Cs"]))


def test_the_standard_body() -> None:
    content = body("standard", SHAPE, V, [row("2026-11-28", LONG), gone("2026-11-27")], NOW)
    assert content.decode() == (
        '{"type":"daily.changed","timestamp":"2026-11-29T12:00:00.123Z","data":{"sink":"crm","projection":"daily",'
        '"version":"1.17","changes":[{"key":{"day": "2026-11-28"},"row":{"day": "2026-11-28", "sum": '
        f'{LONG}}}}},{{"key":{{"day": "2026-11-27"}},"row":null}}]}}}}'
    )
    assert json.loads(content, parse_float=Decimal)["data"]["changes"][0]["row"]["sum"] == Decimal(LONG)


def test_cloudevents() -> None:
    content = body("cloudevents", SHAPE, V, [row("2026-11-28", LONG), gone("2026-11-27")], NOW)
    assert LONG.encode() in content
    changed, removed = json.loads(content)
    assert (changed["type"], changed["data"]) == ("daily.changed", {"day": "2026-11-28", "sum": float(LONG)})
    assert json.loads(changed["subject"]) == {"day": "2026-11-28"}
    assert (removed["type"], "data" in removed) == ("daily.removed", False)
    for one in (changed, removed):
        judged = JSONFormat().read(None, json.dumps(one).encode())
        assert judged.get_specversion() == "1.0"
        assert judged.get_source() == "/refold/sinks/crm"
        assert judged.get_extension("version") == "1.17"
        assert judged.get_id() == one["id"]
    assert len({changed["id"], removed["id"]}) == 2


def test_the_id_of_a_cloudevent_is_that_of_its_content() -> None:
    def ids(*rows: Change, version: Version = V, shape: Shape = SHAPE, now: datetime = NOW) -> list[str]:
        return [one["id"] for one in json.loads(body("cloudevents", shape, version, rows, now))]

    a, b = ids(row("a"), row("b"))
    assert ids(row("b"), row("a"), now=datetime.now(UTC)) == [b, a]
    assert ids(row("a", "2")) != [a]
    assert ids(gone("a")) != [a]
    assert ids(row("a"), version=Version(1, 18)) != [a]
    assert ids(row("a"), shape=SHAPE.__class__("erp", "daily", SHAPE.columns, SHAPE.key)) != [a]


def test_a_repeated_batch_is_the_same_text() -> None:
    rows = [row("a"), gone("b")]
    assert body("cloudevents", SHAPE, V, rows, NOW) == body("cloudevents", SHAPE, V, rows, datetime.now(UTC))


def test_the_id_of_a_message() -> None:
    same = message_id("crm", V, [row("a"), row("b")])
    assert same == message_id("crm", V, [row("b"), row("a")])
    assert same.startswith("msg_") and len(same) == 68 and "." not in same
    others = [
        message_id("erp", V, [row("a"), row("b")]),
        message_id("crm", Version(1, 18), [row("a"), row("b")]),
        message_id("crm", Version(2, 17), [row("a"), row("b")]),
        message_id("crm", V, [row("a")]),
        message_id("crm", V, [row("a"), row("b", "2")]),
        message_id("crm", V, [row("a"), gone("b")]),
    ]
    assert len({same, *others}) == 7


def test_rows_whose_texts_run_on_alike_have_other_ids() -> None:
    def identity(*pairs: tuple[str, str]) -> str:
        return message_id("crm", V, [Change(key, 1, (), text) for key, text in pairs])

    assert len({identity(("a", "bc")), identity(("ab", "c")), identity(("a", "b"), ("c", ""))}) == 3


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.lists(st.tuples(texts, texts), min_size=1))
def test_other_rows_have_other_ids(one: list[tuple[str, str]], two: list[tuple[str, str]]) -> None:
    def rows(pairs: list[tuple[str, str]]) -> list[Change]:
        return [Change(key, 1, (), text) for key, text in pairs]

    assert (message_id("s", V, rows(one)) == message_id("s", V, rows(two))) == (
        sorted(one, key=lambda pair: pair[0]) == sorted(two, key=lambda pair: pair[0])
    )


@pytest.mark.parametrize("form", ["standard", "cloudevents"])
@given(name=texts, key=texts, value=texts)
def test_any_text_arrives(form: str, name: str, key: str, value: str) -> None:
    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    change = Change(text({"k": key}), 1, (key, value), text({"k": key, "v": value}))
    content = body(form, Shape(name, name, (), ("k",)), V, [change], NOW)  # type: ignore[arg-type]
    found = json.loads(content.decode())
    if form == "standard":
        assert (found["type"], found["data"]["sink"]) == (f"{name}.changed", name)
        assert found["data"]["changes"] == [{"key": {"k": key}, "row": {"k": key, "v": value}}]
    else:
        assert (found[0]["type"], found[0]["data"]) == (f"{name}.changed", {"k": key, "v": value})
        assert json.loads(found[0]["subject"]) == {"k": key}


@pytest.mark.parametrize("sink", [None, "crm"])
def test_pings(sink: str | None) -> None:
    found = json.loads(ping_body("standard", sink, "msg_1", NOW))
    assert found["type"] == "refold.ping"
    assert found["data"] == ({} if sink is None else {"sink": sink})
    (event,) = json.loads(ping_body("cloudevents", sink, "msg_1", NOW))
    judged = JSONFormat().read(None, json.dumps(event).encode())
    assert (judged.get_type(), judged.get_id()) == ("refold.ping", "msg_1")
