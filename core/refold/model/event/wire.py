"""Events in the form that goes to Postgres: text, which is known to be storable.

Most events are ordinary, and a few comparisons show that they are valid. `quick` makes these, many at once; for any
other input it gives no answer, and SourceEvent decides, with its reasons. The two agree on every event that `quick`
accepts.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from itertools import repeat
from typing import Any, NamedTuple, Protocol, Self, TypeGuard, TypeVar

from refold.model.event.exact_json import metadata_json
from refold.model.event.jsonb_limits import plain_texts
from refold.model.event.source_event import MAX_CHARACTERS, MAX_VERSION, RESERVED, SourceEvent
from refold.model.event.timestamps import EARLIEST_MS, LATEST_MS, from_epoch_ms, to_utc


class _Items(Protocol):
    """Items of which a part can be taken."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __getitem__(self, part: slice, /) -> Self: ...


Items = TypeVar("Items", bound=_Items)
R = TypeVar("R")

_FIELDS = frozenset(SourceEvent.model_fields)
_NO_METADATA: dict[str, Any] = {}
_FEW = 8
"""Items that are not worth another look together."""
_TIME = (
    "(?!9999)[1-9][0-9]{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])[T ]"
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
)
"""A time that Postgres and Python read alike, if its month has the day. No offset leaves the range of years."""
_ORDINARY_TIMES = re.compile(f"(?:{_TIME}\n)*+").fullmatch


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


def quick(offered: Sequence[dict[Any, Any]]) -> list[WireEvent] | None:
    """Return events from their fields if all are valid for certain; None says nothing about any. Pure.

    It looks at the fields of all events together, so that what Python does for one event costs little.

    Args:
        offered: what SourceEvent would get for each.
    """
    fields = set().union(*offered)
    if not _FIELDS.issuperset(fields):
        return None
    try:
        ids = [event["id"] for event in offered]
        actions = [event["action"] for event in offered]
        times = quick_times([event["ts"] for event in offered])
    except KeyError:
        return None
    users = [event.get("user_id") for event in offered]
    versions = [event.get("version", 1) for event in offered] if "version" in fields else None
    if not are_ordinary_ids(ids) or not are_ordinary(actions) or not are_ordinary_users(users):
        return None
    if versions is not None and not _are_versions(versions):
        return None
    metadatas = [event.get("metadata", _NO_METADATA) for event in offered]
    if not set(map(type, metadatas)) <= {dict}:
        return None
    texts = plain_texts(metadatas)
    if texts is None or times is None:
        return None
    columns = (ids, users, actions, times, texts, versions or repeat(1))
    return [*map(WireEvent._make, zip(*columns, strict=False))]


def convert(items: Items, together: Callable[[Items], Sequence[R] | None], alone: Callable[[Any], R]) -> Iterator[R]:
    """Convert items together as far as that can be done, and the odd ones, which are found by halves, alone.

    Args:
        items: what to convert.
        together: converts many; None if any needs a closer look.
        alone: converts one.
    """
    found = together(items) if len(items) else ()
    if found is not None:
        yield from found
    elif len(items) < _FEW:
        yield from map(alone, items)
    else:
        half = len(items) // 2
        yield from convert(items[:half], together, alone)
        yield from convert(items[half:], together, alone)


def are_ordinary_ids(texts: Sequence[Any]) -> TypeGuard[Sequence[str]]:
    """Return whether all are certainly valid as ids of a producer's events. Pure."""
    return are_ordinary(texts) and not any(text.startswith(RESERVED) for text in texts)


def are_ordinary_users(texts: Sequence[Any]) -> TypeGuard[Sequence[str | None]]:
    """Return whether all are certainly valid as users, or None. Pure."""
    return are_ordinary([text for text in texts if text is not None])


def are_ordinary(texts: Sequence[Any]) -> TypeGuard[Sequence[str]]:
    """Return whether all are certainly valid as user or action. Pure.

    What can be printed has no NUL and no lone surrogate.
    """
    if set(map(type, texts)) - {str} or not all(texts):
        return False
    return max(map(len, texts), default=0) <= MAX_CHARACTERS and "".join(texts).isprintable()


def _are_versions(values: Sequence[Any]) -> bool:
    return set(map(type, values)) == {int} and min(values) > 0 and max(values) <= MAX_VERSION


def quick_times(times: Sequence[object]) -> list[str] | None:
    """Return times of events as text for Postgres if all are valid for certain; None says nothing about any. Pure."""
    kinds = set(map(type, times))
    if kinds == {str}:
        return _quick_texts(times)  # type: ignore[arg-type]
    if kinds == {int}:
        if not (min(times) >= EARLIEST_MS and max(times) <= LATEST_MS):  # type: ignore[type-var, operator]
            return None
        return [from_epoch_ms(ts).isoformat() for ts in times]  # type: ignore[arg-type]
    if kinds == {datetime}:
        try:
            return [to_utc(ts).isoformat() for ts in times]  # type: ignore[arg-type]
        except ValueError:
            return None
    return None


def _quick_texts(times: Sequence[str]) -> list[str] | None:
    lines = "\n".join(times) + "\n"
    if _ORDINARY_TIMES(lines) is None:
        return None
    try:
        for late in {ts[:10] for ts in times if ts[8:10] > "28"}:
            date.fromisoformat(late)
    except ValueError:
        return None
    # What Z means is the server's to say (timezone_abbreviations); an offset is plain.
    found = lines.replace("Z", "+00:00").split("\n")[:-1]
    return found if len(found) == len(times) else None
