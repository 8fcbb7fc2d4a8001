"""The ingestion of a source: records go into the log in batches, each in its own transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import psycopg

from refold.errors import InputError
from refold.model.event.source_event import Answer
from refold.model.event.wire import WireEvent
from refold.sources.files.mapper import Mapper
from refold.sources.files.records import Record, Records, Source
from refold.store.log.append import Chunk, Receipt, all_accepted, chunks_of, reject, store_coming
from refold.store.log.log import Log
from refold.tracing import appending

T = TypeVar("T")
Piece = Records | list[Record]

BATCH = 10_000
"""Most records in one transaction."""
BATCH_CHARACTERS = 32 * 2**20
"""Approximate limit of raw text in one transaction, characters, so that long lines do not fill the memory."""


@dataclass(slots=True)
class Tally:
    """The counts of a source's records: stored + duplicates + rejected = received, at any moment.

    Args:
        received: records whose result is committed.
        stored: new events.
        duplicates: events that the log already had with the same content.
        conflicts: known ids with other content; rejected.
        invalid: records that are not valid events; rejected.
    """

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    invalid: int = 0

    @property
    def rejected(self) -> int:
        """Return the number of records that are in `refold.rejected`."""
        return self.conflicts + self.invalid

    def add(self, receipts: Sequence[Receipt]) -> None:
        """Count the answers of a committed batch."""
        answers = [receipt.answer for receipt in receipts]
        self.received += len(answers)
        self.stored += answers.count(Answer.accepted)
        self.duplicates += answers.count(Answer.duplicate)
        self.conflicts += answers.count(Answer.conflict)
        self.invalid += answers.count(Answer.invalid)


def ingest(
    log: Log,
    source: Source,
    mapper: Mapper,
    tally: Tally,
    *,
    batch: int = BATCH,
    progress: Callable[[Tally], None] = lambda tally: None,
    on_rejected: Callable[[Record, Receipt], None] = lambda record, receipt: None,
    traceparent: str | None = None,
) -> Tally:
    """Append all records of a source to the log.

    After an interruption, whole batches are stored. A second run stores the rest and answers `duplicate` for stored
    events.

    Args:
        log: log to append to.
        source: open source.
        mapper: converts its records to events.
        tally: counts, updated after each batch, so that they are exact after an interruption.
        batch: records in one transaction.
        progress: called after every batch.
        on_rejected: called for each record that was rejected, after its commit.
        traceparent: the trace that the records come in; None: the current one.

    Raises:
        InputError: the rest of the file cannot be read (a damaged gzip); the records before it are stored.
    """
    prepared = (Batch.of(pieces, mapper) for pieces in batches(source, batch))
    # A pipe may keep its reader waiting, and nothing can interrupt a thread that waits.
    with closing(prepared if source.total_bytes is None else ahead(prepared)) as coming:
        for one in coming:
            log.hold_back()
            receipts = log.run(lambda conn, one=one: _append(conn, log, source.name, one, traceparent))  # type: ignore[misc]
            log.learn(receipts)
            tally.add(receipts)
            for record, receipt in one.rejected(receipts):
                on_rejected(record, receipt)
            progress(tally)
    return tally


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one transaction, ready for Postgres.

    Args:
        pieces: the records.
        mapped: what each record is: an event, or the reason why it is none.
        chunks: the events, with their text.
    """

    pieces: Sequence[Piece]
    mapped: Sequence[WireEvent | str]
    chunks: Sequence[Chunk]

    @classmethod
    def of(cls, pieces: Sequence[Piece], mapper: Mapper) -> Batch:
        """Return records as a batch."""
        mapped = [one for piece in pieces for one in mapper.wire(piece)]
        return cls(pieces, mapped, [*chunks_of([one for one in mapped if not isinstance(one, str)])])

    def rejected(self, receipts: Sequence[Receipt]) -> list[tuple[Record, Receipt]]:
        """Return the records that are rejected, with their receipts.

        Args:
            receipts: those of all records, in order.
        """
        if all_accepted(receipts):
            return []
        records = chain.from_iterable(self.pieces)
        return [(record, one) for record, one in zip(records, receipts, strict=True) if one.answer.rejected]


def ahead(items: Iterator[T]) -> Generator[T]:
    """Yield the items of an iterator, and make the next one in a thread meanwhile: the server works on the one before.

    An error comes after all items before it. The thread has ended when the generator is closed.
    """
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _append(conn: psycopg.Connection, log: Log, source: str, batch: Batch, traceparent: str | None) -> list[Receipt]:
    """Append one batch in the caller's transaction, and return a receipt for each record."""
    most = len(batch.mapped)
    with appending(most, traceparent) as span:
        receipts = store_coming(conn, iter(batch.chunks), most, optimistic=log.optimistic, traceparent=span.traceparent)
        if len(receipts) < most:
            stored = iter(receipts)
            receipts = [
                Receipt(None, Answer.invalid, one) if isinstance(one, str) else next(stored) for one in batch.mapped
            ]
        if span.traceparent and not all_accepted(receipts):
            span.answered(Counter(receipt.answer.value for receipt in receipts))
        for record, receipt in batch.rejected(receipts):
            reject(conn, source, record.line, receipt, record.raw)
    return receipts


def batches(source: Source, size: int) -> Iterator[list[Piece]]:
    """Yield records in batches bounded by number and by text; records before an error are a batch, too."""
    batch: list[Piece] = []
    room, characters = size, BATCH_CHARACTERS
    try:
        for piece in source.pieces():
            while piece:
                taken = piece[: _fitting(piece, room, characters)]
                piece = piece[len(taken) :]
                batch.append(taken)
                room -= len(taken)
                characters -= sum(map(len, _raws(taken)))
                if room <= 0 or characters <= 0:
                    yield batch
                    batch, room, characters = [], size, BATCH_CHARACTERS
    except InputError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _fitting(piece: Piece, room: int, characters: int) -> int:
    """Return how many records of a piece belong to a batch: the one that exceeds its text is its last."""
    for at, raw in enumerate(_raws(piece[:room]), 1):
        characters -= len(raw)
        if characters <= 0:
            return at
    return room


def _raws(piece: Piece) -> Sequence[str]:
    return piece.raws if isinstance(piece, Records) else [record.raw for record in piece]
