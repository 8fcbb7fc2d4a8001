"""refold with a store of the archive that lies or refuses: `python -m chaos.faulty_store LIE WORLD archive run …`.

WORLD is `whole`, or a variant of `chaos.broken`.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq  # type: ignore[import-untyped]

from chaos.broken import break_process
from refold.cli import main
from refold.engine.archive import object_store, parquet
from refold.engine.archive.object_store import Content, LocalStore


def truncated(path: Path) -> None:
    """Not all of its bytes."""
    path.write_bytes(path.read_bytes()[:-100])


def changed(path: Path) -> None:
    """One bit is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def fewer(path: Path) -> None:
    """A proper file that lacks an event."""
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(0, table.num_rows - 1), path)


def lost(path: Path) -> None:
    """There is no file."""
    path.unlink()


LIES: dict[str, Callable[[Path], None]] = {"truncated": truncated, "changed": changed, "fewer": fewer, "lost": lost}
"""What can become of a file that the store has taken."""


def _lie(how: Callable[[Path], None]) -> None:
    put = LocalStore.put

    def lying(store: LocalStore, name: str, file: BinaryIO, beat: Callable[[], None]) -> Content:
        sent = put(store, name, file, beat)
        how(store._folder / name)
        return sent

    LocalStore.put = lying  # type: ignore[method-assign, assignment]


def _fail(number: int) -> Callable[..., Any]:
    def failing(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return failing


def _full() -> None:
    vars(object_store)["_copy"] = _fail(errno.ENOSPC)


def _uncertain() -> None:
    """The file is there under its name, and then the store says that it failed."""
    vars(object_store)["_flush_folder"] = _fail(errno.EIO)


def _no_room_here() -> None:
    vars(parquet)["_write_group"] = _fail(errno.ENOSPC)


REFUSALS: dict[str, Callable[[], None]] = {"full": _full, "uncertain": _uncertain, "no room here": _no_room_here}
"""How the store, or the disk of this host, refuses a file."""


if __name__ == "__main__":
    lie, world = sys.argv.pop(1), sys.argv.pop(1)
    if world != "whole":
        break_process(world)
    if lie in LIES:
        _lie(LIES[lie])
    else:
        REFUSALS[lie]()
    main()
