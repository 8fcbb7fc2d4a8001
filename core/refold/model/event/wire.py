"""Events in the form that goes to Postgres: text, which is known to be storable.

Most events are ordinary, and a few comparisons show that they are valid. `quick` makes these; for any other input it
gives no answer, and SourceEvent decides, with its reasons. The two agree on every event that `quick` accepts.
"""

import re
from datetime import datetime
from typing import Any, NamedTuple, TypeGuard

from refold.model.event.exact_json import metadata_json
from refold.model.event.jsonb_limits import plain_text
from refold.model.event.source_event import MAX_CHARACTERS, MAX_VERSION, RESERVED, SourceEvent
from refold.model.event.timestamps import EARLIEST_MS, LATEST_MS, from_epoch_ms, to_utc

_ORDINARY_TIME = re.compile(
    "(?!9999)[1-9][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])[T ]"
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
).fullmatch
"""A time that Postgres and Python read alike, if its month has the day. No offset leaves the range of years."""


class WireEvent(NamedTuple):
    """A valid event, as text for COPY, for arrays and for JSON.

    Args:
        id: id of the event.
        user_id: the user who acted, or None.
        action: kind of event.
        ts: time in ISO 8601 with an offset.
        metadata: compact JSON text.
        version: version of the source's schema.
    """

    id: str
    user_id: str | None
    action: str
    ts: str
    metadata: str
    version: int


def wire(event: SourceEvent) -> WireEvent:
    """Return a validated event in the form that goes to Postgres."""
    return WireEvent(
        event.id, event.user_id, event.action, event.ts.isoformat(), metadata_json(event.metadata), event.version
    )


def quick(fields: dict[Any, Any]) -> WireEvent | None:
    """Return an event from its fields if it is valid for certain; None says nothing about it. Pure.

    Args:
        fields: what SourceEvent would get.
    """
    get = fields.get
    event_id, user_id, action, ts = get("id"), get("user_id"), get("action"), get("ts")
    if not ordinary_id(event_id) or not ordinary(action) or not (user_id is None or ordinary(user_id)):
        return None
    known = 3 + ("user_id" in fields)
    written = quick_time(ts)
    if written is None:
        return None
    metadata = "{}"
    if "metadata" in fields:
        known += 1
        given = fields["metadata"]
        found = plain_text(given) if type(given) is dict else None
        if found is None:
            return None
        metadata = found
    version = 1
    if "version" in fields:
        known += 1
        version = fields["version"]
        if type(version) is not int or not 0 < version <= MAX_VERSION:
            return None
    if len(fields) != known:
        return None
    return WireEvent(event_id, user_id, action, written, metadata, version)


def ordinary_id(text: Any) -> TypeGuard[str]:
    """Return whether a text is certainly valid as the id of a producer's event. Pure."""
    return ordinary(text) and not text.startswith(RESERVED)


def ordinary(text: Any) -> TypeGuard[str]:
    """Return whether a text is certainly valid as user or action. Pure.

    What can be printed has no NUL and no lone surrogate.
    """
    return type(text) is str and 0 < len(text) <= MAX_CHARACTERS and text.isprintable()


def quick_time(ts: object) -> str | None:
    """Return the time of an event as text for Postgres if it is valid for certain; None says nothing about it. Pure."""
    if type(ts) is str:
        if _ORDINARY_TIME(ts) is None:
            return None
        if ts[8:10] > "28":
            try:
                datetime.fromisoformat(ts)
            except ValueError:
                return None
        # What Z means is the server's to say (timezone_abbreviations); an offset is plain.
        return ts[:-1] + "+00:00" if ts[-1] == "Z" else ts
    if type(ts) is int:
        return from_epoch_ms(ts).isoformat() if EARLIEST_MS <= ts <= LATEST_MS else None
    if type(ts) is datetime:
        try:
            return to_utc(ts).isoformat()
        except ValueError:
            return None
    return None
