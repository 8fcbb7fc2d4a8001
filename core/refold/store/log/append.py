"""Appending events in the caller's transaction (transactional outbox), for Python and the command line.

Postgres decides what gets in. A large batch is tried as one COPY, which is several times as fast; when the
ledger refuses it (a known id), the batch goes event by event through `refold.admit`, which classifies.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from pydantic import ValidationError

from refold.model.event.exact_json import kind
from refold.model.event.source_event import Answer, SourceEvent, reasons
from refold.model.event.wire import WireEvent, convert, quick, wire
from refold.model.stream.copy_text import NULL, escaped, escaped_column, quoted
from refold.tracing import appending

BULK = 64
"""Least number of events of a batch that is tried as COPY."""
CHUNK = 1000
"""Rows in one write to COPY; the server works on them while the next are prepared."""

# Columns as arrays: typed values spare Postgres the parsing of JSON, and a temporary table would keep the
# caller from PREPARE TRANSACTION.
_ADMIT_COLUMNS = """
SELECT answer, reason
FROM refold.admit_parsed(ARRAY(
    -- No user is the empty text, which no user can be: what NULL means in an array is the session's to say.
    SELECT ROW(ordinal, event_id, nullif(user_id, ''), action, ts, metadata, version, NULL)::refold.parsed_event
    FROM ROWS FROM (
        unnest(%s::text[]), unnest(%s::text[]), unnest(%s::text[]),
        unnest(%s::timestamptz[]), unnest(%s::jsonb[]), unnest(%s::integer[])
    ) WITH ORDINALITY AS o (event_id, user_id, action, ts, metadata, version, ordinal)
))
"""
_ADMIT_JSON = "SELECT answer, reason FROM refold.admit(%s::jsonb)"
_ROOM = "SELECT refold.ensure_room(%s)"
_SET = "set_config('refold.traceparent', %s, true)"
CONTRACT = "events_contract"
"""The constraint that an event breaks with its contract (sql/functions/check_contracts.sql)."""
_FOREIGN = re.compile("[^\x00-\x7f]+")
_COPY = "COPY refold.events (event_id, user_id, action, ts, metadata, version) FROM STDIN"


class Receipt(NamedTuple):
    """The result for one event.

    `reason` is set for conflict and invalid; `event_id` is None when the input had no usable id.
    """

    event_id: str | None
    answer: Answer
    reason: str | None = None


def all_accepted(receipts: Sequence[Receipt]) -> bool:
    """Return whether all events are new, as most batches are."""
    return [receipt.answer for receipt in receipts].count(Answer.accepted) == len(receipts)


def append(
    conn: psycopg.Connection,
    events: Iterable[SourceEvent | Mapping[str, Any]],
    *,
    source: str = "python",
    optimistic: bool = True,
) -> list[Receipt]:
    """Append events to the log inside the caller's transaction (a transactional outbox).

    Conflicts and invalid events, which include those that a contract refuses, are recorded in `refold.rejected` in the
    same transaction. Where OpenTelemetry records the current span, the append is a span below it, and the events are
    part of its trace.

    Args:
        conn: connection that may act as a producer; the call commits nothing. In autocommit mode, outside a
            transaction, the call is its own transaction.
        events: SourceEvents, or mappings with the same fields.
        source: name of the producer; recorded with input that is rejected.
        optimistic: try a large batch as COPY first. Turn it off if duplicates are expected: a failed COPY costs
            half of a successful one.

    Returns:
        One receipt for each event, in order.

    Raises:
        psycopg.errors.SerializationFailure: under REPEATABLE READ or SERIALIZABLE, another transaction has
            just appended one of the events; retry the whole transaction.
    """
    offered = list(events)
    place: list[int] = []
    invalid: dict[int, Receipt] = {}

    def valid() -> Iterator[Chunk]:
        for begin in range(0, len(offered), CHUNK):
            events: list[WireEvent] = []
            for at, one in enumerate(convert(offered[begin : begin + CHUNK], _together, _alone), begin):
                if isinstance(one, Receipt):
                    invalid[at] = one
                else:
                    place.append(at)
                    events.append(one)
            yield Chunk.of(events)

    with appending(len(offered)) as span, _atomic(conn) as own:
        stored = store_coming(
            conn, valid(), len(offered), optimistic=optimistic, traceparent=span.traceparent, alone=own is not None
        )
        answered = zip(place, stored, strict=True)
        rejected = {at: receipt for at, receipt in answered if receipt.answer.rejected}
        if span.traceparent and not (all_accepted(stored) and not invalid):
            span.answered(Counter(receipt.answer.value for receipt in chain(stored, invalid.values())))
        for at, receipt in (invalid | rejected).items():
            reject(conn, source, at + 1, receipt, raw_text(offered[at]))
    if not invalid:
        return stored
    receipts = invalid | dict(zip(place, stored, strict=True))
    return [receipts[at] for at in range(len(offered))]


def _together(offered: list[Any]) -> list[WireEvent] | None:
    """Return events that are valid for certain; None says nothing about any."""
    return quick(offered) if set(map(type, offered)) == {dict} else None


def _alone(one: SourceEvent | Mapping[str, Any]) -> WireEvent | Receipt:
    """Return an event, or the answer to what is none."""
    try:
        return wire(one if isinstance(one, SourceEvent) else SourceEvent.model_validate(_plain(one)))
    except ValidationError as error:
        given = one.get("id") if isinstance(one, Mapping) else None
        return Receipt(given if isinstance(given, str) else None, Answer.invalid, reasons(error))


def _plain(one: object) -> object:
    """Convert any mapping to a dict, which pydantic requires."""
    return dict(one) if isinstance(one, Mapping) else one


class Chunk(NamedTuple):
    """Some events, and their text for COPY.

    Args:
        events: the events.
        text: their lines.
    """

    events: Sequence[WireEvent]
    text: str

    @classmethod
    def of(cls, events: Sequence[WireEvent]) -> Chunk:
        """Return events with their text; it is made column by column, which takes a half of the time."""
        if not events:
            return cls(events, "")
        ids, users, actions, times, metadatas, versions = zip(*events, strict=True)
        anonymous = None in users
        named = [NULL if user is None else escaped(user) for user in users] if anonymous else escaped_column(users)
        columns = (
            escaped_column(ids), named, escaped_column(actions), times, escaped_column(metadatas), map(str, versions),
        )  # fmt: skip
        return cls(events, "\n".join(map("\t".join, zip(*columns, strict=True))) + "\n")


def chunks_of(events: Sequence[WireEvent]) -> Iterator[Chunk]:
    """Yield events in chunks, each with its text."""
    for begin in range(0, len(events), CHUNK):
        yield Chunk.of(events[begin : begin + CHUNK])


def store(
    conn: psycopg.Connection, events: Sequence[WireEvent], *, optimistic: bool = True, traceparent: str = ""
) -> list[Receipt]:
    """Store validated events and return a receipt for each, without recording any rejected one.

    Args:
        conn: the caller's connection and transaction.
        events: events to store, in order.
        optimistic: try a large batch as COPY first.
        traceparent: the sampled trace that they come in; empty if there is none.
    """
    return store_coming(conn, chunks_of(events), len(events), optimistic=optimistic, traceparent=traceparent)


def store_coming(
    conn: psycopg.Connection,
    coming: Iterator[Chunk],
    most: int,
    *,
    optimistic: bool = True,
    traceparent: str = "",
    alone: bool = False,
) -> list[Receipt]:
    """Store validated events as they come, and return a receipt for each: the server works while the next are made.

    Args:
        conn: the caller's connection and transaction.
        coming: events to store, in order; it is read to its end.
        most: events that may come.
        optimistic: try a large batch as COPY first.
        traceparent: the sampled trace that they come in; empty if there is none.
        alone: whether nothing else is appended in the transaction.
    """
    # The caller's session may speak an encoding in which not every text can be sent.
    plain = conn.info.encoding == "utf-8"
    events: list[WireEvent] = []
    if plain and optimistic and most >= BULK:
        events, copied = _copy(conn, coming, most, traceparent, alone)
        if copied:
            return [Receipt(event.id, Answer.accepted) for event in events]
    for chunk in coming:
        events += chunk.events
    if not events:
        return []
    if len(events) < BULK or not plain:
        query, parameters = _ADMIT_JSON, [_sendable(conn, "[" + ",".join(map(_json, events)) + "]")]
    else:
        query, parameters = _ADMIT_COLUMNS, event_columns(events)
    if traceparent:
        query, parameters = in_trace(query), [traceparent, *parameters]
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(query.encode(), parameters).fetchall()
    return [
        Receipt(event.id, Answer(_text(answer)), _text(reason))
        for event, (answer, reason, *_) in zip(events, rows, strict=True)
    ]


def in_trace(query: str) -> str:
    """Return a query as one whose events come in a sampled trace; its first parameter is the traceparent.

    It sets what the log's trigger reads, and resets it, in the same statement: a round trip for each would double the
    time of a single event. The query depends on the row before it, so it comes second, and its function has ended when
    its first row is returned.
    """
    return f"""
SELECT a.*, set_config('refold.traceparent', traced.former, true)
FROM (
    SELECT coalesce(current_setting('refold.traceparent', true), '') AS former,
           set_config('refold.traceparent', %s, true) AS context
) AS traced
CROSS JOIN LATERAL (SELECT * FROM ({query}) AS q WHERE traced.context IS NOT NULL OFFSET 0) AS a
"""


def reject(conn: psycopg.Connection, source: str, line: int, receipt: Receipt, raw: str) -> None:
    """Store rejected input with its raw text, reason, source and line (or place in the batch, from 1)."""
    conn.execute(
        "SELECT refold.reject(%s, %s, %s, %s, %s)",
        (
            _sendable(conn, source),
            line,
            receipt.answer.value,
            _sendable(conn, receipt.reason or ""),
            _sendable(conn, storable(raw)),
        ),
    )


def _sendable(conn: psycopg.Connection, text: str) -> str:
    """Return a text that can be sent in any client encoding; JSON stays the same JSON."""
    if conn.info.encoding == "utf-8" or text.isascii():
        return text
    return _FOREIGN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _text(value: str | bytes | None) -> Any:
    """Decode the bytes that a session without an encoding (SQL_ASCII) returns."""
    return value.decode() if isinstance(value, bytes) else value


def storable(raw: str) -> str:
    """Return a text that Postgres can store: NUL and lone surrogates as backslash escapes."""
    return raw.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def raw_text(event: SourceEvent | Mapping[str, Any]) -> str:
    """Return an event as readable text."""
    if isinstance(event, SourceEvent):
        return _json(wire(event))
    if not isinstance(event, Mapping):
        return _text_of(event)
    return "{" + ", ".join(f"{_text_of(key)}: {_text_of(value)}" for key, value in event.items()) + "}"


def _text_of(value: object) -> str:
    """Return a value as JSON, or its kind if it cannot be written: too long, too deep, or circular."""
    try:
        return json.dumps(value, ensure_ascii=False, default=repr)
    except Exception:  # whatever a foreign __repr__ raises must not stop the other events of the batch
        return json.dumps(f"({kind(value)} that cannot be written)")


def _atomic(conn: psycopg.Connection) -> AbstractContextManager[object]:
    """Open a transaction in autocommit mode; otherwise use the caller's."""
    if conn.autocommit and conn.info.transaction_status is TransactionStatus.IDLE:
        return conn.transaction()
    return nullcontext()


_ID = itemgetter(0)


class _Repeated(Exception):
    """Two events of a batch have one id."""


def _copy(
    conn: psycopg.Connection, coming: Iterator[Chunk], most: int, traceparent: str, alone: bool
) -> tuple[list[WireEvent], bool]:
    """Try one COPY under a savepoint; return the events that were read, and whether all are stored.

    They are not if an id comes twice or is in the ledger, if one breaks its contract, or if the last segment is full.
    """
    if not traceparent:
        conn.execute(_ROOM, (most,))
        return _copied(conn, coming)
    with conn.cursor(row_factory=tuple_row) as cursor:
        former = f"coalesce(current_setting('refold.traceparent', true), ''), {_SET}"
        row = cursor.execute(f"{_ROOM}, {former}".encode(), (most, traceparent)).fetchone()
    assert row is not None
    try:
        return _copied(conn, coming)
    finally:
        # Later events of the caller's transaction are not of this append.
        if not alone and conn.info.transaction_status is TransactionStatus.INTRANS:
            conn.execute(f"SELECT {_SET}".encode(), (_text(row[1]),))


def _copied(conn: psycopg.Connection, coming: Iterator[Chunk]) -> tuple[list[WireEvent], bool]:
    events: list[WireEvent] = []
    ids: set[str] = set()
    try:
        with conn.transaction(), conn.cursor() as cursor, cursor.copy(_COPY) as copy:
            for chunk in coming:
                events += chunk.events
                ids.update(map(_ID, chunk.events))
                if len(ids) < len(events):
                    raise _Repeated
                copy.write(chunk.text)
    except (psycopg.errors.UniqueViolation, _Repeated):
        return events, False
    except psycopg.errors.CheckViolation as error:
        # No constraint: others drew the positions that were free a moment ago. `refold.admit` makes room, and answers
        # for each event where one breaks its contract.
        if error.diag.constraint_name not in (None, CONTRACT):
            raise
        return events, False
    return events, True


def event_columns(events: Sequence[WireEvent | None]) -> list[str]:
    """Return events as six array literals: ids, users, actions, times, metadata, versions; None is an empty row."""
    columns: tuple[Iterable[str], ...] = (
        [quoted(event.id) if event else '""' for event in events],
        [quoted(event.user_id or "") if event else '""' for event in events],
        [quoted(event.action) if event else '""' for event in events],
        [f'"{event.ts}"' if event else "epoch" for event in events],
        [quoted(event.metadata) if event else '"{}"' for event in events],
        [str(event.version) if event else "1" for event in events],
    )
    return ["{" + ",".join(column) + "}" for column in columns]


def _json(event: WireEvent) -> str:
    """Return the event as the JSON that `refold.admit` takes."""
    fields: dict[str, object] = {"id": event.id, "user_id": event.user_id, "action": event.action}
    head = json.dumps(fields, ensure_ascii=False)
    return f'{head[:-1]}, "ts": "{event.ts}", "metadata": {event.metadata}, "version": {event.version}}}'
