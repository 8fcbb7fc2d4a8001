"""Bodies of webhooks. Keys and rows are JSON texts already, put in as they are, so that numbers keep all digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from refold.sinks.receiver import Change, Shape, Version

Form = Literal["standard", "cloudevents"]

CONTENT_TYPES: dict[Form, str] = {
    "standard": "application/json",
    "cloudevents": "application/cloudevents-batch+json",
}


def message_id(sink: str, version: Version, changes: Sequence[Change]) -> str:
    """Return the id of a message: the same for the same content under the same version. Pure."""
    digest = hashlib.sha256(f"{sink}\0{version}".encode())
    for change in changes:
        digest.update(f"\0{change.key}\0{change.json}".encode())
    return f"msg_{digest.hexdigest()[:40]}"


def body_of(form: Form, shape: Shape, version: Version, changes: Sequence[Change], at: str) -> bytes:
    """Return the body of a message.

    Args:
        form: the form of the body.
        shape: the form of the rows.
        version: their version.
        changes: the rows.
        at: the time, RFC 3339, UTC.
    """
    if form == "cloudevents":
        return ("[" + ",".join(_event(shape, version, change, at) for change in changes) + "]").encode()
    rows = ",".join(f'{{"key":{change.key},"row":{change.json or "null"}}}' for change in changes)
    data = _object({"sink": shape.sink, "projection": shape.projection, "version": str(version)})
    head = _object({"type": f"{shape.projection}.changed", "timestamp": at})
    return f'{head[:-1]},"data":{data[:-1]},"changes":[{rows}]}}}}'.encode()


def ping(at: str, sink: str) -> bytes:
    """Return the body of a message that changes nothing."""
    return _object({"type": "refold.ping", "timestamp": at, "data": {"sink": sink}}).encode()


def _event(shape: Shape, version: Version, change: Change, at: str) -> str:
    gone = change.values is None
    attributes = _object(
        {
            "specversion": "1.0",
            "id": message_id(shape.sink, version, [change]),
            "source": f"refold:sinks/{shape.sink}",
            "type": f"{shape.projection}.{'removed' if gone else 'changed'}",
            "subject": change.key,
            "time": at,
            "refoldversion": str(version),
            "datacontenttype": "application/json",
        }
    )
    return f'{attributes[:-1]},"data":{{"key":{change.key},"row":{change.json or "null"}}}}}'


def _object(values: dict[str, object]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))
