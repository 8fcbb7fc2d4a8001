"""Bodies of webhooks, and the ids by which a receiver knows a repetition. Pure.

Keys and rows are embedded as the JSON texts that Postgres wrote: a number keeps all its digits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

from refold.model.erasure import ErasureNotice
from refold.sinks.receiver import Change, Shape, Version

Form = Literal["standard", "cloudevents"]

CONTENT_TYPES: dict[Form, str] = {
    "standard": "application/json",
    "cloudevents": "application/cloudevents-batch+json",
}
PING = "refold.ping"
"""Type of a body that changes nothing."""
ERASED = "refold.erased"
"""Type of a body that tells of an erasure."""


def message_id(sink: str, version: Version, changes: Iterable[Change]) -> str:
    """Return the value of `webhook-id`: the same for the same rows of a version, in any order.

    Args:
        sink: name of the sink.
        version: of the rows.
        changes: the rows.
    """
    return "msg_" + _digest([sink, str(version), *(part for one in sorted(changes, key=_key) for part in _parts(one))])


def body(form: Form, shape: Shape, version: Version, changes: Sequence[Change], now: datetime) -> bytes:
    """Return the body of a delivery.

    Args:
        form: `standard`, one message with all rows; or `cloudevents`, a batch of CloudEvents 1.0, one for each row.
        shape: the form of the rows.
        version: of the rows.
        changes: the rows.
        now: time of the delivery; a version has no time of its own. CloudEvents go without: their ids say that a
            repetition is the same event, so all else in it has to be the same, too.
    """
    if form == "cloudevents":
        return f"[{','.join(_cloudevent(shape, version, one) for one in changes)}]".encode()
    rows = ",".join(f'{{"key":{one.key},"row":{_row(one) or "null"}}}' for one in changes)
    names = f'"sink":{_text(shape.sink)},"projection":{_text(shape.projection)}'
    data = f'{{{names},"version":"{version}","changes":[{rows}]}}'
    return _standard(f"{shape.projection}.changed", now, data)


def ping_body(form: Form, sink: str | None, message: str, now: datetime) -> bytes:
    """Return the body of a ping, of type `refold.ping`.

    Args:
        form: as for `body`.
        sink: name of the sink, if it is known.
        message: the value of `webhook-id`.
        now: time of the ping.
    """
    data = f'{{"sink":{_text(sink)}}}' if sink is not None else "{}"
    if form == "standard":
        return _standard(PING, now, data)
    return f"[{_own_cloudevent(PING, sink or '', message, data, at=now)}]".encode()


def erased_id(sink: str, erased: ErasureNotice) -> str:
    """Return the value of `webhook-id` of the notice of an erasure: the same for a repetition."""
    return "msg_" + _of_erasure(sink, erased)


def erased_body(form: Form, shape: Shape, erased: ErasureNotice, now: datetime) -> bytes:
    """Return the body of the notice of an erasure, of type `refold.erased`.

    Args:
        form: as for `body`.
        shape: the form of the sink's rows.
        erased: the erasure.
        now: time of the delivery; CloudEvents go without.
    """
    data = json.dumps(
        {
            "sink": shape.sink,
            "projection": shape.projection,
            "erasure": str(erased.name),
            "mode": erased.mode,
            "erased_at": _rfc3339(erased.erased_at),
            "events": erased.events,
            "mentions": erased.mentions,
        },
        ensure_ascii=False,
    )
    if form == "standard":
        return _standard(ERASED, now, data)
    return f"[{_own_cloudevent(ERASED, shape.sink, _of_erasure(shape.sink, erased), data)}]".encode()


def _of_erasure(sink: str, erased: ErasureNotice) -> str:
    return _digest([sink, ERASED, str(erased.name)])


def _own_cloudevent(kind: str, sink: str, identity: str, data: str, *, at: datetime | None = None) -> str:
    """Return a CloudEvent that is about no row."""
    time = "" if at is None else f'"time":"{_rfc3339(at)}",'
    return (
        f'{{"specversion":"1.0","id":{_text(identity)},"source":{_text(_source(sink))},"type":"{kind}",'
        f'{time}"datacontenttype":"application/json","data":{data}}}'
    )


def _standard(kind: str, now: datetime, data: str) -> bytes:
    return f'{{"type":{_text(kind)},"timestamp":"{_rfc3339(now)}","data":{data}}}'.encode()


def _cloudevent(shape: Shape, version: Version, change: Change) -> str:
    row = _row(change)
    kind = f"{shape.projection}.{'changed' if row else 'removed'}"
    identity = _digest([shape.sink, str(version), *_parts(change)])
    data = f',"datacontenttype":"application/json","data":{row}' if row else ""
    return (
        f'{{"specversion":"1.0","id":"{identity}","source":{_text(_source(shape.sink))},"type":{_text(kind)},'
        f'"subject":{_text(change.key)},"version":"{version}"{data}}}'
    )


def _source(sink: str) -> str:
    return f"/refold/sinks/{quote(sink, safe='')}"


def _key(change: Change) -> str:
    return change.key


def _row(change: Change) -> str:
    """Return the row as JSON; an empty text if it is gone."""
    return "" if change.values is None else change.json


def _parts(change: Change) -> tuple[str, str]:
    return change.key, _row(change)


def _text(value: str | None) -> str:
    return json.dumps(value, ensure_ascii=False)


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _digest(parts: Iterable[str]) -> str:
    """Return the SHA-256 of texts in hex; lengths keep two lists of texts apart whose concatenation is the same."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()
