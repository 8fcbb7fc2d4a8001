"""Ingesting a source: records in batches into the log, each batch in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import psycopg

from refold.errors import InputError
from refold.model.event.source_event import Answer, SourceEvent
from refold.sources.files.mapper import Mapper
from refold.sources.files.records import Record, Source
from refold.store.log.append import Receipt, set_aside, store
from refold.store.log.log import Log

BATCH = 10_000
"""Records in one transaction, at most."""
BATCH_CHARACTERS = 32 * 2**20
"""Characters of raw text in one transaction, about: long lines must not fill the memory."""
SET_ASIDE = (Answer.conflict, Answer.invalid)


@dataclass(slots=True)
class Tally:
    """What became of the records of a source: stored + duplicates + set aside = received, at any moment.

    Args:
        received: records that were committed, one way or another.
        stored: new events.
        duplicates: events that the log held already, with the same content.
        conflicts: known ids with other content; set aside.
        invalid: records that are no events; set aside.
    """

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    invalid: int = 0

    @property
    def set_aside(self) -> int:
        """Records that were kept in `refold.rejected`."""
        return self.conflicts + self.invalid

    def add(self, answers: Iterable[Answer]) -> None:
        """Counts the answers of a committed batch."""
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
    on_aside: Callable[[Record, Receipt], None] = lambda record, receipt: None,
) -> Tally:
    """Reads a source to its end.

    Interrupted at any moment it leaves whole batches behind; a second run completes it, and answers
    `duplicate` for what is there.

    Args:
        log: where the events go.
        source: the open source.
        mapper: turns its records into events.
        tally: is counted up batch by batch, so that it holds also when this is interrupted.
        batch: records in one transaction.
        progress: told after every batch.
        on_aside: told of each record that was set aside, once that is committed.

    Raises:
        InputError: the rest of the file cannot be read (a damaged gzip); what came before is stored.
    """
    for records in _batches(source, batch):
        receipts = log.run(lambda conn, records=records: _append(conn, log, source.name, mapper, records))  # type: ignore[misc]
        log.learn(receipts)
        tally.add(receipt.answer for receipt in receipts)
        for record, receipt in zip(records, receipts, strict=True):
            if receipt.answer in SET_ASIDE:
                on_aside(record, receipt)
        progress(tally)
    return tally


def _append(conn: psycopg.Connection, log: Log, source: str, mapper: Mapper, records: list[Record]) -> list[Receipt]:
    """One batch, in the transaction of the caller."""
    mapped = [mapper(record) for record in records]
    events = [one for one in mapped if isinstance(one, SourceEvent)]
    answers = iter(store(conn, events, optimistic=log.optimistic))
    receipts: list[Receipt] = []
    for record, one in zip(records, mapped, strict=True):
        receipt = next(answers) if isinstance(one, SourceEvent) else Receipt(None, Answer.invalid, one)
        if receipt.answer in SET_ASIDE:
            set_aside(conn, source, record.line, receipt, record.raw)
        receipts.append(receipt)
    return receipts


def _batches(source: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Records in batches bounded by number and by text; what came before an error is a batch too."""
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
