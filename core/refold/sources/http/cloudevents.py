"""CloudEvents 1.0, in its three modes of HTTP: one message becomes the fields of one event.

The names are those of the specification: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md, its JSON
format, and its HTTP binding. Two producers may use the same `id`, so an event's id has the source before it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from refold.model.event.exact_json import kind, parse_json
from refold.model.event.source_event import MAX_CHARACTERS

SPECVERSION = "1.0"
_NAME = re.compile("[a-z0-9]+")
_REQUIRED = ("id", "source", "type")
_USERS = ("userid", "userId", "user_id")
_JSON_TYPE = re.compile(r"[^;]*(?:/|\+)json\s*(?:;.*)?$", re.IGNORECASE)
_TEXT_TYPE = re.compile(r"text/", re.IGNORECASE)
_CHARSET = re.compile(r"charset\s*=\s*\"?([^;\"\s]+)", re.IGNORECASE)


def from_json(message: object) -> dict[str, Any]:
    """Return the fields of an event from a message in structured or batched mode.

    Args:
        message: the decoded JSON object.

    Raises:
        ValueError: it is no CloudEvent that an event can be made of; the text says why.
    """
    if not isinstance(message, dict):
        raise ValueError(f"a CloudEvent must be an object, not {kind(message)}")
    attributes = {name: value for name, value in message.items() if name not in ("data", "data_base64")}
    data = {name: message[name] for name in ("data", "data_base64") if name in message}
    if len(data) == 2:
        raise ValueError("data: there is data_base64, too; a CloudEvent has one of them")
    if "data_base64" in data:
        data = {"data_base64": _checked_base64(data["data_base64"])}
    return _event(attributes, data)


def from_headers(headers: Iterable[tuple[str, str]], body: bytes) -> dict[str, Any]:
    """Return the fields of an event from a message in binary mode.

    Args:
        headers: names in lower case, and values.
        body: the data, as it was sent.

    Raises:
        ValueError: it is no CloudEvent that an event can be made of; the text says why.
    """
    attributes: dict[str, Any] = {}
    content_type = ""
    for name, value in headers:
        if name == "content-type":
            content_type = value
        elif name.startswith("ce-"):
            attributes[name[3:]] = _header_text(name, value)
    if content_type:
        attributes["datacontenttype"] = content_type
    return _event(attributes, _data_of(body, content_type))


def _event(attributes: Mapping[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    version = attributes.get("specversion")
    if version != SPECVERSION:
        raise ValueError(f"specversion: must be {SPECVERSION!r}, not {version!r:.40}")
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"the attribute {name[:40]!r} has other characters than a-z and 0-9")
        if isinstance(value, (dict, list)):
            raise ValueError(f"{name}: must be a string, a boolean or an integer, not {kind(value)}")
    for name in _REQUIRED:
        value = attributes.get(name)
        if value is None:
            raise ValueError(f"{name}: is missing")
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name}: must be a string that is not empty, not {kind(value)}")
    if attributes.get("time") is None:
        raise ValueError(
            "time: is missing. CloudEvents lets it out, but an event needs the time at which it happened: with the "
            "time of arrival, a retry would be another event"
        )
    if " " in attributes["source"]:
        raise ValueError("source: must be a URI reference, which has no space")
    metadata = {
        name: value
        for name, value in attributes.items()
        if value is not None and name not in ("id", "type", "time", "specversion", "userid")
    }
    return {
        "id": bounded_id(f"{attributes['source']} {attributes['id']}"),
        "user_id": _user(attributes, data.get("data")),
        "action": attributes["type"],
        "ts": attributes["time"],
        "metadata": {**metadata, **data},
    }


def bounded_id(text: str) -> str:
    """Return a text as an id: itself, or its SHA-256 if it is longer than an id may be."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _user(attributes: Mapping[str, Any], data: object) -> object:
    if attributes.get("userid") not in (None, ""):
        return attributes["userid"]
    if isinstance(data, dict):
        for name in _USERS[1:]:
            if isinstance(data.get(name), str) and data[name]:
                return data[name]
    return None


def _header_text(name: str, value: str) -> str:
    """Undo the encoding of the HTTP binding: percent signs, and quotes around the value.

    The binding wants percent signs for what is not ASCII. npm's SDK does not write them: it gives the text to HTTP,
    whose headers are ISO 8859-1. Bytes that are UTF-8 are read as such; others without percent signs are ISO 8859-1.
    """
    text = value.strip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeError:
        if "%" not in text:
            return text
        raise ValueError(f"the header {name} is not percent-encoded UTF-8") from None


def _data_of(body: bytes, content_type: str) -> dict[str, Any]:
    if not body:
        return {}
    if _JSON_TYPE.match(content_type):
        try:
            return {"data": parse_json(body.decode("utf-8-sig"))}
        except UnicodeDecodeError:
            raise ValueError("data: is not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"data: {error}") from None
    if _TEXT_TYPE.match(content_type):
        charset = _CHARSET.search(content_type)
        try:
            return {"data": body.decode(charset[1] if charset else "utf-8")}
        except (LookupError, UnicodeDecodeError):
            raise ValueError("data: is not text in the character set of its content type") from None
    return {"data_base64": base64.b64encode(body).decode()}


def _checked_base64(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"data_base64: must be a string, not {kind(value)}")
    try:
        return base64.b64encode(base64.b64decode(value, validate=True)).decode()
    except (binascii.Error, ValueError):
        raise ValueError("data_base64: is not base64") from None
