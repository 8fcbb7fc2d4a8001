"""Messages of Segment's API become events, and the retry of a message the same event."""

from typing import Any

import pytest

from refold.model.event.source_event import SourceEvent
from refold.sources.http.segment import TYPES, from_message

TRACK = {
    "type": "track",
    "messageId": "m-1",
    "event": "Bought",
    "userId": "u1",
    "anonymousId": "anon",
    "timestamp": "2026-03-01T09:00:00.123Z",
    "properties": {"amount": 5},
    "context": {"library": {"name": "x"}},
}


def test_the_fields_of_the_event() -> None:
    event = SourceEvent.model_validate(from_message(TRACK))
    assert (event.id, event.user_id, event.action) == ("m-1", "u1", "Bought")
    assert event.metadata == {
        "type": "track",
        "anonymousId": "anon",
        "properties": {"amount": 5},
        "context": {"library": {"name": "x"}},
    }


def test_a_retry_is_the_same_event() -> None:
    first = from_message({**TRACK, "sentAt": "2026-03-01T09:00:01Z"})
    retried = {**TRACK, "sentAt": "2026-03-01T09:00:09Z", "receivedAt": "x", "writeKey": "k", "_metadata": {"n": 2}}
    assert from_message(retried) == first


@pytest.mark.parametrize("type_", TYPES)
def test_the_route_or_the_message_tells_the_type(type_: str) -> None:
    message = {**TRACK, "type": type_}
    assert from_message(message) == from_message({k: v for k, v in message.items() if k != "type"}, type_)
    assert from_message(message)["action"] == ("Bought" if type_ == "track" else type_)


def test_who_did_it() -> None:
    assert from_message({**TRACK, "userId": None})["user_id"] == "anon"
    assert from_message({**TRACK, "userId": ""})["user_id"] == "anon"
    assert from_message({**TRACK, "userId": 7})["user_id"] == "7"
    assert from_message({**TRACK, "userId": None, "anonymousId": None})["user_id"] is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "delete"}, "type"),
        ({"event": None}, "event"),
        ({"messageId": None}, "messageId"),
        ({"timestamp": None}, "timestamp"),
    ],
)
def test_what_is_no_event_has_a_reason(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_message({**TRACK, **change})
    with pytest.raises(ValueError, match="object"):
        from_message([])
