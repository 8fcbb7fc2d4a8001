"""CloudEvents become events, the same ones in every mode."""

from typing import Any

import pytest

from refold.model.event.source_event import SourceEvent
from refold.sources.http.cloudevents import from_headers, from_json

MESSAGE = {
    "specversion": "1.0",
    "id": "A 1",
    "source": "/shop/eu",
    "type": "com.example.bought",
    "time": "2026-03-01T09:00:00.123Z",
    "subject": "basket",
    "datacontenttype": "application/json",
    "partner": "x",
    "data": {"userId": "u1", "amount": 5},
}


def test_the_fields_of_the_event() -> None:
    event = SourceEvent.model_validate(from_json(MESSAGE))
    assert (event.id, event.user_id, event.action) == ("/shop/eu A 1", "u1", "com.example.bought")
    assert event.ts.isoformat() == "2026-03-01T09:00:00.123000+00:00"
    assert event.metadata == {
        "source": "/shop/eu",
        "subject": "basket",
        "datacontenttype": "application/json",
        "partner": "x",
        "data": {"userId": "u1", "amount": 5},
    }


def test_binary_and_structured_mode_are_one_event() -> None:
    headers = [
        ("content-type", "application/json"),
        ("ce-partner", "x"),
        ("ce-subject", "basket"),
        ("ce-time", "2026-03-01T09:00:00.123Z"),
        ("ce-type", "com.example.bought"),
        ("ce-source", "/shop/eu"),
        ("ce-id", "A%201"),
        ("ce-specversion", "1.0"),
        ("authorization", "Bearer no part of it"),
    ]
    assert from_headers(headers, b'{"userId":"u1","amount":5}') == from_json(MESSAGE)


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b"5", {"data": 5}),
        ("application/vnd.x+json; charset=utf-8", b'"a"', {"data": "a"}),
        ("text/plain", "é".encode(), {"data": "é"}),
        ("text/plain; charset=latin-1", "é".encode("latin-1"), {"data": "é"}),
        ("application/octet-stream", b"\x00\x01", {"data_base64": "AAE="}),
        ("", b"\x00", {"data_base64": "AA=="}),
        ("application/json", b"", {}),
    ],
)
def test_data_of_every_kind(content_type: str, body: bytes, data: dict[str, Any]) -> None:
    headers = [(f"ce-{name}", str(MESSAGE[name])) for name in ("specversion", "id", "source", "type", "time")]
    found = from_headers([*headers, *([("content-type", content_type)] if content_type else [])], body)
    assert {
        name: value for name, value in found["metadata"].items() if name.startswith("data") and "type" not in name
    } == data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": None}, "id: is missing"),
        ({"id": ""}, "id"),
        ({"type": 5}, "type"),
        ({"source": "a b"}, "source"),
        ({"time": None}, "time: is missing"),
        ({"Upper": "x"}, "'Upper'"),
        ({"nested": {}}, "nested"),
        ({"data_base64": "AA=="}, "data_base64"),
        ({"data": None, "data_base64": "!"}, "data_base64"),
    ],
)
def test_what_is_no_event_has_a_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_json({**MESSAGE, **change})


def test_two_sources_may_use_one_id() -> None:
    other = from_json({**MESSAGE, "source": "/shop/us"})
    assert other["id"] != from_json(MESSAGE)["id"]
    long = from_json({**MESSAGE, "source": "/" + "x" * 300})
    assert long["id"].startswith("sha256:")
    assert SourceEvent.model_validate(long).id == long["id"]


def test_an_extension_names_the_user() -> None:
    assert from_json({**MESSAGE, "userid": "u9"})["user_id"] == "u9"
    assert "userid" not in from_json({**MESSAGE, "userid": "u9"})["metadata"]
    assert from_json({**MESSAGE, "data": 5})["user_id"] is None


def test_headers_that_are_not_percent_encoded() -> None:
    """npm's SDK sends text as it is: ISO 8859-1, as HTTP has it. What was meant as percent-encoding must be UTF-8."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/s",
        "ce-type": "t",
        "ce-time": "2026-03-01T09:00:00Z",
    }
    for raw, partner in (("\xfc", "ü"), ("\xc3\xbc", "ü"), ("%C3%BC", "ü"), ("100%", "100%")):
        found = from_headers([*headers.items(), ("ce-partner", raw)], b"")
        assert found["metadata"]["partner"] == partner, raw
    with pytest.raises(ValueError, match="ce-partner is not percent-encoded UTF-8"):
        from_headers([*headers.items(), ("ce-partner", "\xfc%FC")], b"")
