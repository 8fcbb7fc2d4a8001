"""Messages of the Segment API (track, identify, page, screen, group, alias): each becomes the fields of one event.

What an SDK writes anew for every attempt (`sentAt`, and what a gateway adds) is left out: else the retry of a message
would be the same id with other content. For the same reason Segment's correction of clocks by `sentAt` is not applied.
"""

from __future__ import annotations

from typing import Any

from refold.model.event.exact_json import kind
from refold.sources.http.cloudevents import bounded_id

TYPES = ("track", "identify", "page", "screen", "group", "alias")
"""Types of messages, which are also routes."""
_OF_THE_ATTEMPT = frozenset({"sentAt", "receivedAt", "writeKey", "retryCount", "_metadata", "failedDeliveries"})
"""Fields that differ between two attempts to send one message."""
_TAKEN = frozenset({"messageId", "userId", "timestamp", "originalTimestamp", "type"})


def from_message(message: object, type_: str | None = None) -> dict[str, Any]:
    """Return the fields of an event.

    Args:
        message: the decoded JSON object.
        type_: type of message that the route tells; None where the message tells it.

    Raises:
        ValueError: no event can be made of it; the text says why.
    """
    if not isinstance(message, dict):
        raise ValueError(f"a message must be an object, not {kind(message)}")
    told = type_ or message.get("type")
    if told not in TYPES:
        raise ValueError(f"type: must be one of {', '.join(TYPES)}, not {told!r:.40}")
    if told == "track" and not isinstance(message.get("event"), str):
        raise ValueError(f"event: must be the name of what happened, not {kind(message.get('event'))}")
    when = message.get("timestamp") or message.get("originalTimestamp")
    if when is None:
        raise ValueError("timestamp: is missing, and originalTimestamp too")
    given = message.get("messageId")
    if given is None:
        raise ValueError("messageId: is missing; a retry could not be told from another event")
    left = _TAKEN | _OF_THE_ATTEMPT
    metadata = {name: value for name, value in message.items() if name not in left and value is not None}
    user = _text(message.get("userId")) or _text(message.get("anonymousId"))
    action = message["event"] if told == "track" else told
    if told == "track":
        metadata.pop("event", None)
    return {
        "id": bounded_id(given) if isinstance(given, str) else given,
        "user_id": user,
        "action": action,
        "ts": when,
        "metadata": {"type": told, **metadata},
    }


def write_key(body: object) -> str | None:
    """Return the token that stands in a body, where a request has no header for it; None if there is none."""
    key = body.get("writeKey") if isinstance(body, dict) else None
    return key if isinstance(key, str) else None


def without_key(message: object) -> object:
    """Return a message without the token: what is rejected is kept, and a token must not be."""
    return (
        {name: value for name, value in message.items() if name != "writeKey"} if isinstance(message, dict) else message
    )


def _text(value: object) -> object:
    """Return an identifier: SDKs send whole numbers as such; nothing and the empty text are none."""
    if type(value) is int:
        return str(value)
    return value or None
