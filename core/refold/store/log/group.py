"""Events of many callers in one statement: what group commit sends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from refold.model.event.source_event import Answer, SourceEvent
from refold.model.event.wire import wire
from refold.model.stream.copy_text import array
from refold.store.log.append import Receipt, event_columns, in_trace, raw_text, reject, storable, store

_QUERY = """
SELECT answer, reason
FROM refold.append_group(
    %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::jsonb[], %s::integer[],
    %s::text[], %s::text[], %s::text[], %s::bigint[])
"""
_APPEND, _APPEND_IN_TRACE = _QUERY.encode(), in_trace(_QUERY).encode()


@dataclass(slots=True)
class Offer:
    """One event of a caller, or input that is no event.

    Args:
        event: the event; None if the input is none.
        source: name of the producer, for what is rejected.
        line: place in the caller's input, from 1.
        event_id: id that the input gave, if it had one.
        reason: why the input is no event.
        raw: the input as text; needed only where `event` is None.
        traceparent: the sampled trace that it comes in; empty if there is none.
    """

    event: SourceEvent | None
    source: str
    line: int
    event_id: str | None = None
    reason: str = ""
    raw: str = ""
    traceparent: str = ""

    def refuse(self, reason: str, raw: str) -> None:
        """Make it input that is no event: the database has refused it."""
        self.event, self.reason, self.raw = None, reason, raw


def append_group(conn: psycopg.Connection, offers: Sequence[Offer]) -> list[Receipt]:
    """Append events, and keep the rejected ones with their source and line, in one transaction and one round trip.

    Without traces it is one statement; the events of each trace need a statement of their own.

    Args:
        conn: a producer's, in autocommit mode.
        offers: events, in order; of two with one id the first is stored.

    Returns:
        One receipt for each, in order.
    """
    parts = by_trace(offers)
    if len(parts) == 1:
        [(traceparent, _)] = parts
        with conn.cursor(row_factory=tuple_row) as cursor:
            return _receipts(offers, cursor.execute(*_statement(traceparent, offers), prepare=True).fetchall())
    receipts: dict[int, Receipt] = {}
    with conn.pipeline(), conn.transaction(), ExitStack() as cursors:
        asked = [
            (places, cursors.enter_context(conn.cursor(row_factory=tuple_row)).execute(*statement, prepare=True))
            for traceparent, places in parts
            for statement in [_statement(traceparent, [offers[place] for place in places])]
        ]
        for places, cursor in asked:
            receipts |= zip(places, _receipts([offers[place] for place in places], cursor.fetchall()), strict=True)
    return [receipts[place] for place in range(len(offers))]


def _statement(traceparent: str, offers: Sequence[Offer]) -> tuple[bytes, list[str]]:
    columns = event_columns([wire(offer.event) if offer.event else None for offer in offers])
    more = (
        array(offer.reason for offer in offers),
        array(storable(offer.raw) for offer in offers),
        array(storable(offer.source) for offer in offers),
        "{" + ",".join(str(offer.line) for offer in offers) + "}",
    )
    if traceparent:
        return _APPEND_IN_TRACE, [traceparent, *columns, *more]
    return _APPEND, [*columns, *more]


def _receipts(offers: Sequence[Offer], rows: Iterable[Sequence[Any]]) -> list[Receipt]:
    return [
        Receipt(offer.event.id if offer.event else offer.event_id, Answer(answer), reason)
        for offer, (answer, reason, *_) in zip(offers, rows, strict=True)
    ]


def by_trace(offers: Sequence[Offer]) -> list[tuple[str, list[int]]]:
    """Return the places of the offers of each trace, the traces in the order of their first offers. Pure.

    If an id comes twice, a part ends wherever the trace changes: of two events with one id the first must be stored.
    """
    first = offers[0].traceparent if offers else ""
    if all(offer.traceparent == first for offer in offers):
        return [(first, list(range(len(offers))))]
    ids = [offer.event.id for offer in offers if offer.event]
    if len(set(ids)) < len(ids):
        runs = groupby(range(len(offers)), lambda place: offers[place].traceparent)
        return [(traceparent, list(places)) for traceparent, places in runs]
    parts: dict[str, list[int]] = {}
    for place, offer in enumerate(offers):
        parts.setdefault(offer.traceparent, []).append(place)
    return list(parts.items())


def append_bulk(conn: psycopg.Connection, offers: Sequence[Offer], *, optimistic: bool = True) -> list[Receipt]:
    """Append many events of one caller in a transaction, at the speed of `refold.append`.

    Args:
        conn: a producer's, in autocommit mode.
        offers: events, in order.
        optimistic: try COPY first; see `refold.append`.

    Returns:
        One receipt for each, in order.
    """
    answers: dict[int, Receipt] = {}
    receipts = []
    with conn.transaction():
        for traceparent, places in by_trace(offers):
            valid = [place for place in places if offers[place].event]
            events = [wire(event) for place in valid if (event := offers[place].event)]
            stored = store(conn, events, optimistic=optimistic, traceparent=traceparent)
            answers |= zip(valid, stored, strict=True)
        for place, offer in enumerate(offers):
            receipt = answers.get(place) or Receipt(offer.event_id, Answer.invalid, offer.reason)
            if receipt.answer.rejected:
                raw = raw_text(offer.event) if offer.event else offer.raw
                reject(conn, offer.source, offer.line, receipt, raw)
            receipts.append(receipt)
    return receipts
