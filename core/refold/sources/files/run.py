"""The ingestion of a source: records go into the log in batches, each in its own transaction."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from refold.errors import InputError
from refold.model.event.source_event import Answer
from refold.model.event.wire import WireEvent
from refold.sources.files.mapper import Mapper
from refold.sources.files.records import Record, Source
from refold.store.log.append import Receipt, reject, store
from refold.store.log.log import Log

T = TypeVar("T")

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

    def add(self, answers: Iterable[Answer]) -> None:
        """Count the answers of a committed batch."""
        for answer in answers:
            self.received += 1
            match answer:
                case Answer.accepted:
                    self.stored += 1
                case Answer.duplicate:
                    self.duplicates += 1
                case Answer.conflict:
                    self.conflicts += 1
                case Answer.invalid:
                    self.invalid += 1


def ingest(
    log: Log,
    source: Source,
    mapper: Mapper,
    tally: Tally,
    *,
    batch: int = BATCH,
    progress: Callable[[Tally], None] = lambda tally: None,
    on_rejected: Callable[[Record, Receipt], None] = lambda record, receipt: None,
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

    Raises:
        InputError: the rest of the file cannot be read (a damaged gzip); the records before it are stored.
    """
    prepared = ((records, [mapper.wire(record) for record in records]) for records in _batches(source, batch))
    # A pipe may keep its reader waiting, and nothing can interrupt a thread that waits.
    with closing(prepared if source.total_bytes is None else _ahead(prepared)) as batches:
        for records, mapped in batches:
            log.hold_back()
            receipts = log.run(
                lambda conn, records=records, mapped=mapped: _append(conn, log, source.name, records, mapped)  # type: ignore[misc]
            )
            log.learn(receipts)
            tally.add(receipt.answer for receipt in receipts)
            for record, receipt in zip(records, receipts, strict=True):
                if receipt.answer.rejected:
                    on_rejected(record, receipt)
            progress(tally)
    return tally


def _ahead(items: Iterator[T]) -> Generator[T]:
    """Yield the items of an iterator, and make the next one in a thread meanwhile: the server works on the one before.

    An error comes after all items before it. The thread has ended when the generator is closed.
    """
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _append(
    conn: psycopg.Connection, log: Log, source: str, records: list[Record], mapped: list[WireEvent | str]
) -> list[Receipt]:
    """Append one batch in the caller's transaction."""
    events = [one for one in mapped if not isinstance(one, str)]
    answers = iter(store(conn, events, optimistic=log.optimistic))
    receipts: list[Receipt] = []
    for record, one in zip(records, mapped, strict=True):
        receipt = Receipt(None, Answer.invalid, one) if isinstance(one, str) else next(answers)
        if receipt.answer.rejected:
            reject(conn, source, record.line, receipt, record.raw)
        receipts.append(receipt)
    return receipts


def _batches(source: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Yield records in batches bounded by number and by text; records before an error are a batch, too."""
    batch: list[Record] = []
    characters = 0
    try:
        for record in source:
            batch.append(record)
            characters += len(record.raw)
            if len(batch) >= size or characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    except InputError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
