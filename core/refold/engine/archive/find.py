"""Finding a purged event by its id: a look at the ids of every file, until one has it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg

from refold.engine.archive.parquet import Rows
from refold.engine.archive.sources import Sources, purged
from refold.store.archives import Archive


@dataclass(frozen=True, slots=True)
class InArchive:
    """A purged event.

    Args:
        archive: the file that has it.
        row: its columns; times are aware, and the metadata is text.
    """

    archive: Archive
    row: dict[str, Any]


def find_event(
    conn: psycopg.Connection,
    event_id: str,
    position: int | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> InArchive | None:
    """Return a purged event; None if no file has it.

    Args:
        conn: may read the manifest.
        event_id: its id.
        position: its position, if it is known: then one file is read.
        progress: called with the number of files that were read, and of all.

    Raises:
        Unreadable: the archive does not have purged events as it was proved to.
    """
    files = [
        one for one in reversed(purged(conn)) if position is None or one.lower_position <= position < one.upper_position
    ]
    with closing(Sources()) as sources:
        for number, archive in enumerate(files):
            progress(number, len(files))
            found = _in_file(sources, conn, archive, event_id)
            if found is not None:
                return InArchive(archive, found)
    return None


def _in_file(sources: Sources, conn: psycopg.Connection, archive: Archive, event_id: str) -> dict[str, Any] | None:
    with sources.file(conn, archive) as file:
        return Rows(file, archive.location).find(event_id)
