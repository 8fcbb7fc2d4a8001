"""The staging of files for a backfill: all their records go into a table of their own, and no event counts yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

import psycopg

from refold.model.stream.copy_text import NULL, escaped
from refold.postgres.failpoints import failpoint
from refold.sources.files.mapper import Mapper
from refold.sources.files.records import Record, Records, Source
from refold.sources.files.run import BATCH, Batch, Piece, ahead, batches
from refold.store.file_backfills import COLUMNS, FileBackfill
from refold.store.log.append import storable

SHOWN = 20
"""Most invalid records of a file that are named."""
_NO_EVENT = "\t".join([NULL] * 6)


@dataclass(slots=True)
class StagedFile:
    """One file that was staged.

    Args:
        name: its name, which stands in ids by row.
        bytes: its size; None for a pipe.
        records: its records.
        invalid: those that are no events.
        first_invalid: line and problem of the first of them.
    """

    name: str
    bytes: int | None
    records: int = 0
    invalid: int = 0
    first_invalid: list[tuple[int, str]] = field(default_factory=list)


class Stager:
    """Adds files to the staging table of a backfill, each batch of records in its own transaction.

    Args:
        conn: acts as refold_backfill, in autocommit mode.
        backfill: the backfill.
    """

    def __init__(self, conn: psycopg.Connection, backfill: FileBackfill) -> None:
        self._conn = conn
        self._copy = f"COPY {backfill.staging} ({', '.join(COLUMNS)}) FROM STDIN".encode()
        self._records = 0
        self._characters = 0
        self.files: list[StagedFile] = []

    def stage(
        self, source: Source, mapper: Mapper, progress: Callable[[StagedFile], None] = lambda file: None
    ) -> StagedFile:
        """Add all records of a file.

        Args:
            source: the open file.
            mapper: converts its records to events.
            progress: called after every batch.

        Raises:
            InputError: the rest of the file cannot be read.
        """
        told = StagedFile(source.name, source.total_bytes)
        self.files.append(told)
        prepared = (Batch.of(pieces, mapper) for pieces in batches(source, BATCH))
        with closing(prepared if source.total_bytes is None else ahead(prepared)) as coming:
            for batch in coming:
                with self._conn.transaction(), self._conn.cursor() as cursor, cursor.copy(self._copy) as copy:
                    copy.write("".join(self._rows(batch, told)))
                failpoint("staged_batch")
                progress(told)
        return told

    def _rows(self, batch: Batch, told: StagedFile) -> Iterator[str]:
        """Yield the rows of a batch as text for COPY."""
        file = len(self.files)
        events = iter("".join(chunk.text for chunk in batch.chunks).split("\n"))
        for place, (line, one) in enumerate(zip(_lines(batch.pieces), batch.mapped, strict=True)):
            if isinstance(one, str):
                told.invalid += 1
                if len(told.first_invalid) < SHOWN:
                    told.first_invalid.append((line, one))
                raw = storable(_record(batch.pieces, place).raw)
                rest = f"{_NO_EVENT}\t{escaped(storable(one))}\t{escaped(raw)}"
            else:
                rest = f"{next(events)}\t{NULL}\t{NULL}"
            self._records += 1
            self._characters += len(rest)
            yield f"{self._records}\t{self._characters}\t{file}\t{line}\t{rest}\n"
        told.records += len(batch.mapped)


def _lines(pieces: Sequence[Piece]) -> Iterator[int]:
    return chain.from_iterable(
        piece.lines if isinstance(piece, Records) else [record.line for record in piece] for piece in pieces
    )


def _record(pieces: Sequence[Piece], place: int) -> Record:
    """Return the record at a place among those of some pieces."""
    for piece in pieces:
        if place < len(piece):
            return next(iter(piece[place : place + 1]))
        place -= len(piece)
    raise AssertionError("unreachable: the place is one of a record")
