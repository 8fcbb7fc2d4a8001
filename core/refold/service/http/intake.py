"""From the body of a request to offers of events: plain events, CloudEvents, and messages of Segment's API."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from refold.model.event.exact_json import parse_json
from refold.model.event.source_event import SourceEvent, reasons
from refold.service.http.problems import Problem
from refold.sources.http.cloudevents import bounded_id
from refold.store.log.append import raw_text
from refold.store.log.group import Offer
from refold.store.tokens import Token

MOST_ITEMS = 10_000
"""Most events in one body that is read as a whole."""

Convert = Callable[[Any], Any]
"""From a decoded message to the fields of an event; raises ValueError."""


def decoded(body: bytes) -> Any:
    """Return the JSON value of a body that is read as a whole.

    Raises:
        Problem: 400 it is not JSON.
    """
    try:
        return parse_json(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8") from None
    except ValueError as error:
        raise Problem(400, f"the body {error}") from None


def offers_of(messages: Sequence[Any], token: Token, convert: Convert = lambda message: message) -> list[Offer]:
    """Return an offer for each decoded message.

    Raises:
        Problem: 413 they are too many.
    """
    if len(messages) > MOST_ITEMS:
        raise Problem(413, f"the body has more than {MOST_ITEMS} events; send fewer, or lines of JSON (NDJSON)")
    return [offer_of(message, token, line, convert) for line, message in enumerate(messages, 1)]


def offer_of(message: Any, token: Token, line: int, convert: Convert = lambda message: message) -> Offer:
    """Return the offer of one decoded message: an event, or the reason why it is none."""
    try:
        fields = convert(message)
        if token.kind == "write_key" and isinstance(fields, dict) and isinstance(fields.get("id"), str):
            # Else a client whose key is public could take the ids of others.
            fields = {**fields, "id": bounded_id(f"{token.name}:{fields['id']}")}
        event = SourceEvent.model_validate(fields)
    except ValidationError as error:
        return _refused(message, token, line, reasons(error))
    except ValueError as error:
        return _refused(message, token, line, str(error))
    return Offer(event, token.source, line)


def offer_of_line(line: bytes | None, token: Token, number: int) -> Offer:
    """Return the offer of one line of NDJSON; None is a line that was too long to be read."""
    if line is None:
        return Offer(None, token.source, number, reason="the line is too long", raw="(a line that is too long)")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raw = line.decode("utf-8", "backslashreplace")
        return Offer(None, token.source, number, reason="the line is not UTF-8", raw=raw)
    try:
        message = parse_json(text)
    except ValueError as error:
        return Offer(None, token.source, number, reason=f"the line {error}", raw=text)
    return offer_of(message, token, number)


def _refused(message: Any, token: Token, line: int, reason: str) -> Offer:
    given = message.get("id", message.get("messageId")) if isinstance(message, dict) else None
    raw = raw_text(message) if isinstance(message, Mapping) else json.dumps(message, ensure_ascii=False, default=str)
    return Offer(None, token.source, line, given if isinstance(given, str) else None, reason, raw)
