"""Parameters of the statements that read a stream. All are text, so that every page uses one prepared statement."""

from __future__ import annotations

from collections.abc import Sequence

from refold.model.stream.copy_text import array
from refold.model.stream.cursor import LAST_ORDINAL, Cursor, Key, Read, Snapshot

FIRST = Key(0, 0, -1)
LAST = Key(2**63 - 1, 2**63 - 1, LAST_ORDINAL)
BYTES = 16 * 2**20
"""Bytes of its stream that a transform reads at once; in Python's memory they take several times as much."""


def read_parameters(read: Read, limit: int, dead: Sequence[str] = ()) -> dict[str, str]:
    """Return the parameters of a page. All are text, so that every page uses one prepared statement.

    Args:
        read: the rows that may be read.
        limit: the most rows to read.
        dead: the event ids of the build's dead letters.
    """
    after = read.after or FIRST
    upto = read.upto or LAST
    return {
        "open": "{" + ",".join(str(txid) for txid in read.done.xip if txid >= after.txid) + "}",
        "done": str(read.done),
        "target": str(read.target),
        "settled": str(settled(read.target)),
        "limit": str(limit),
        "bytes": str(BYTES),
        "dead": array(dead),
        "whole": str(read.after is None and read.upto is None),
        **key_parameters("after", after),
        **key_parameters("upto", upto),
        **key_parameters("from", max(after, Key(read.done.xmax, 0, -1))),
        **key_parameters("to", min(upto, end_of(read.target.xmax - 1))),
    }


def cursor_parameters(cursor: Cursor, dead: Sequence[str] = ()) -> dict[str, str]:
    """Return a cursor, and the event ids of the build's dead letters, as the parameters of `Stream.applied`."""
    return {
        "dead": array(dead),
        "done": str(cursor.done),
        "target": str(cursor.target or cursor.done),
        **key_parameters("progress", cursor.progress or FIRST),
    }


def key_parameters(name: str, key: Key) -> dict[str, str]:
    """Return a key as the parameters of `Stream.bound`."""
    return {
        f"{name}_txid": str(key.txid),
        f"{name}_position": str(key.position),
        f"{name}_ordinal": str(key.ordinal),
    }


def settled_part(read: Read) -> Read | None:
    """Return the first part of a read whose transactions have all ended and which is one range of the index, or None.

    In a backlog that is nearly everything: the rest of a late transaction, and all events after the transactions that
    were open at `done` and before those that were open at `target`. None at the start of a run: there the general
    statement (`Stream.page`) reads both branches.
    """
    if read.after is None:
        return None
    txid = read.after.txid
    if txid >= read.done.xmax:
        end = end_of(settled(read.target) - 1)
    elif read.target.visible(txid) and not read.done.visible(txid):
        end = end_of(txid)
    else:
        return None
    upto = end if read.upto is None else min(end, read.upto)
    return Read(read.done, read.target, read.after, upto) if upto > read.after else None


def settled(snapshot: Snapshot) -> int:
    """Return the txid below which every transaction has ended in a snapshot."""
    return snapshot.xip[0] if snapshot.xip else snapshot.xmax


def end_of(txid: int) -> Key:
    """Return the greatest key that an event of this transaction could have."""
    return Key(txid, LAST.position, LAST_ORDINAL)
