"""Events of many callers in one statement: what group commit sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import tuple_row

from refold.model.event.source_event import Answer, SourceEvent
from refold.model.event.wire import wire
from refold.model.stream.copy_text import array
from refold.store.log.append import Receipt, event_columns, raw_text, reject, storable, store

_APPEND = """
SELECT answer, reason
FROM refold.append_group(
    %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::jsonb[], %s::integer[],
    %s::text[], %s::text[], %s::text[], %s::bigint[])
"""


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
    """

    event: SourceEvent | None
    source: str
    line: int
    event_id: str | None = None
    reason: str = ""
    raw: str = ""

    def refuse(self, reason: str, raw: str) -> None:
        """Make it input that is no event: the database has refused it."""
        self.event, self.reason, self.raw = None, reason, raw


def append_group(conn: psycopg.Connection, offers: Sequence[Offer]) -> list[Receipt]:
    """Append events, and keep the rejected ones with their source and line, in one statement.

    Args:
        conn: a producer's; in autocommit mode the statement is a transaction.
        offers: events, in order; of two with one id the first is stored.

    Returns:
        One receipt for each, in order.
    """
    columns = event_columns([wire(offer.event) if offer.event else None for offer in offers])
    more = (
        array(offer.reason for offer in offers),
        array(storable(offer.raw) for offer in offers),
        array(storable(offer.source) for offer in offers),
        "{" + ",".join(str(offer.line) for offer in offers) + "}",
    )
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_APPEND.encode(), [*columns, *more], prepare=True).fetchall()
    return [
        Receipt(offer.event.id if offer.event else offer.event_id, Answer(answer), reason)
        for offer, (answer, reason) in zip(offers, rows, strict=True)
    ]


def append_bulk(conn: psycopg.Connection, offers: Sequence[Offer], *, optimistic: bool = True) -> list[Receipt]:
    """Append many events of one caller in a transaction, at the speed of `refold.append`.

    Args:
        conn: a producer's, in autocommit mode.
        offers: events, in order.
        optimistic: try COPY first; see `refold.append`.

    Returns:
        One receipt for each, in order.
    """
    with conn.transaction():
        answers = iter(store(conn, [wire(offer.event) for offer in offers if offer.event], optimistic=optimistic))
        receipts = []
        for offer in offers:
            receipt = next(answers) if offer.event else Receipt(offer.event_id, Answer.invalid, offer.reason)
            if receipt.answer.rejected:
                raw = raw_text(offer.event) if offer.event else offer.raw
                reject(conn, offer.source, offer.line, receipt, raw)
            receipts.append(receipt)
    return receipts
