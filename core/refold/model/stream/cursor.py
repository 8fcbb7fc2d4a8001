"""The cursor (checkpoint, consumer offset): which events a build has applied, and the rules by which it may move.

Commit order is not sequence order, so no single number can say what a reader has seen. A cursor is
a Postgres snapshot, `done`, as in PgQ (Skype). While a *run* is open, it also has the snapshot at
which the run ends, `target`, and the key that the run has reached, `progress`. All cursors, at any
depth of the graph, refer to the transactions that wrote the *log*.

A worker locks the build, then in a second statement (a snapshot of its own) takes the upstream's
cursor and the page that `next_read` allows, and writes the rows and the cursor from `advance` in
the same transaction. The log as an upstream is `Cursor(done=<current snapshot>.capped(<own txid>))`.
Nothing here does I/O. tests/model/stream/test_cursor_model.py shows the purpose of each rule.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple, Self

LAST_ORDINAL = 2147483647
"""Greatest ordinal (a Postgres integer): `Key(txid, position, LAST_ORDINAL)` closes a log event."""
RESTORED = 2
"""The txid of events that a recovery has rewritten (Postgres's FrozenTransactionId: older than every transaction)."""
BOUND = 100
"""Txid above those of all rewritten events and below those of a cluster: initdb itself uses hundreds."""

_SNAPSHOT = re.compile(r"([0-9]+):([0-9]+):((?:[0-9]+(?:,[0-9]+)*)?)")


class Key(NamedTuple):
    """Coordinates of a row: the order in which every stream is read.

    `txid` and `position` are those of the log event that the row comes from; `ordinal` tells apart
    the rows that one event became (0 in the log itself).
    """

    txid: int
    position: int
    ordinal: int

    def whole(self) -> "Key":
        """Return the last key up to which all rows of each event are passed."""
        if self.ordinal == LAST_ORDINAL:
            return self
        return Key(self.txid, self.position - 1, LAST_ORDINAL)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A set of finished transactions, as Postgres's `pg_snapshot`.

    Finished are all txids below `xmax` except those in `xip`, which is ascending; every one in `xip`
    is at least `xmin`.

    Raises:
        ValueError: the parts do not make a snapshot (the conditions that Postgres checks too).
    """

    xmin: int
    xmax: int
    xip: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.xmin <= self.xmax:
            raise ValueError(f"not a snapshot: {self}: needs 1 <= xmin <= xmax")
        if self.xip:
            if self.xip[0] < self.xmin or self.xip[-1] >= self.xmax:
                raise ValueError(f"not a snapshot: {self}: each xip must be in [xmin, xmax)")
            if any(a >= b for a, b in zip(self.xip, self.xip[1:], strict=False)):
                raise ValueError(f"not a snapshot: {self}: xip must ascend")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read Postgres's text form, `xmin:xmax:xip,xip`.

        Raises:
            ValueError: the text is not a snapshot.
        """
        match = _SNAPSHOT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a snapshot: {text!r}: expected 'xmin:xmax:xip,xip'")
        xmin, xmax, xip = match.groups()
        return cls(int(xmin), int(xmax), tuple(map(int, xip.split(","))) if xip else ())

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, self.xip))}"

    def _in_progress(self, txid: int) -> bool:
        at = bisect_left(self.xip, txid)
        return at < len(self.xip) and self.xip[at] == txid

    def visible(self, txid: int) -> bool:
        """Return whether `txid` had finished: `pg_visible_in_snapshot`. (Aborted transactions have no rows.)"""
        return txid < self.xmax and (txid < self.xmin or not self._in_progress(txid))

    def includes(self, other: "Snapshot") -> bool:
        """Return whether every txid visible in `other` is visible here: a superset, perhaps the same set."""
        return other.xmax <= self.xmax and all(x >= other.xmax or other._in_progress(x) for x in self.xip)

    def union(self, other: "Snapshot") -> "Snapshot":
        """Return the snapshot of what had finished here or there."""
        open_ = tuple(sorted(x for x in {*self.xip, *other.xip} if not self.visible(x) and not other.visible(x)))
        end = max(self.xmax, other.xmax)
        return Snapshot(open_[0] if open_ else end, end, open_)

    def capped(self, own_txid: int, known: "Snapshot | None" = None) -> "Snapshot":
        """Return the part of this snapshot that a cursor written by transaction `own_txid` may hold.

        Everything from `own_txid` on counts as not finished, whether it has finished or not:

        1. A transaction's own txid is visible in its snapshot as soon as a later transaction has
           finished. If a cursor included it, events that this transaction appends after the page
           would be skipped.
        2. After a server crash Postgres assigns txids again that left nothing in the WAL. If a
           cursor included such a txid, the events of the transaction that gets it next would be
           skipped. Txids below `own_txid` are not assigned again: the cursor's commit record has
           `own_txid`, and recovery starts above it. (Postgres also logs each commit and abort before
           a snapshot can show it, hence before that record; a capped cursor does not depend on it.)

        Successive cursors of a build grow, because a later worker normally has a greater txid. A
        transaction that got its txid long before it locked the build may see less than the cursor
        already holds; `next_read` then tells it to wait.

        Args:
            own_txid: the transaction that writes the cursor.
            known: a snapshot of a cursor that the transaction has found committed in the database. That commit
                precedes its own in the WAL, so Postgres does not assign txids below `known.xmax` again either, and
                the result may include them. A switch needs this: it locks many builds and gets its txid with the
                first lock. Without `known` it could never cover builds that move on before it has locked the last.
        """
        end = own_txid if known is None else max(own_txid, known.xmax)
        if own_txid >= self.xmax:
            return self
        xip = sorted({*self.xip, own_txid}) if end > own_txid else self.xip
        end = min(end, self.xmax)
        open_ = tuple(xip[: bisect_left(xip, end)])
        return Snapshot(open_[0] if open_ else end, end, open_)


EMPTY = Snapshot.parse("1:1:")
"""The snapshot in which nothing is finished: the cursor of a build that has read nothing."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The events that a build has applied: all of `done`, and in the open run to `target` all keys <= `progress`.

    Between runs `target` and `progress` are None. In a run, `progress` is None until the first key is applied.
    """

    done: Snapshot
    target: Snapshot | None = None
    progress: Key | None = None

    @classmethod
    def parse(cls, done: str, target: str | None, txid: int | None, position: int | None, ordinal: int | None) -> Self:
        """Return a cursor from its columns in the database: two snapshots as texts, and the parts of `progress`."""
        progress = None
        if txid is not None:
            assert position is not None and ordinal is not None
            progress = Key(txid, position, ordinal)
        return cls(Snapshot.parse(done), None if target is None else Snapshot.parse(target), progress)

    def applied(self, key: Key) -> bool:
        """Return whether the row of the stream at `key` has been applied."""
        if self.done.visible(key.txid):
            return True
        if self.target is None or self.progress is None:
            return False
        return key <= self.progress and self.target.visible(key.txid)

    @property
    def whole(self) -> Snapshot:
        """Return the transactions of which every row has been applied."""
        if self.target is None or self.progress is None:
            return self.done
        return self.done.union(self.target.capped(self.progress.txid))

    def covers(self, other: "Cursor") -> bool:
        """Return whether everything that `other` has applied is applied here too; False if that is not certain."""
        if other.target is None or other.progress is None:
            return self.done.includes(other.done)
        if self.done.includes(other.target):
            return True
        if self.target is None or self.progress is None:
            return False
        return self.done.includes(other.done) and self.target.includes(other.target) and self.progress >= other.progress


@dataclass(frozen=True, slots=True)
class Read:
    """The rows of the stream that the next page may read, ordered by key.

    They are visible in `target` and not in `done`, with `after` < key <= `upto`; None means no limit
    on that side.
    """

    done: Snapshot
    target: Snapshot
    after: Key | None
    upto: Key | None


def next_read(cursor: Cursor, upstream: Cursor) -> Read | None:
    """Return what a build at `cursor` may read of its upstream; None if it has nothing to read, or must wait.

    The caller must read `upstream` before the rows of the page, or in the same snapshot: a later
    cursor includes rows that the page did not see. The upstream may have been replaced by another
    build of the same projection at any time, also by a build that is behind.

    Args:
        cursor: the build's cursor.
        upstream: the cursor of the build or log that it reads.
    """
    target = cursor.target or _new_target(cursor.done, upstream)
    if target is None:
        return None
    if upstream.done.includes(target):
        return Read(cursor.done, target, cursor.progress, None)
    if upstream.target != target or upstream.progress is None:
        return None
    # The output of a build is complete up to there. When its progress is inside an event, the rest of that event may
    # still add rows with any ordinal, so readers of the build stop before the event.
    upto = upstream.progress.whole()
    if cursor.progress is not None and upto <= cursor.progress:
        return None
    return Read(cursor.done, target, cursor.progress, upto)


def _new_target(done: Snapshot, upstream: Cursor) -> Snapshot | None:
    """Return the snapshot at which a new run from `done` ends; None if no run can start."""
    # Without this test a reader would go backwards when it is switched to an upstream that is behind it.
    if not upstream.done.includes(done):
        return None
    return upstream.target if done.includes(upstream.done) else upstream.done


def advance(cursor: Cursor, read: Read, last: Key | None, full: bool) -> Cursor:
    """Return the cursor after a page of `read` has been applied.

    Args:
        cursor: the cursor that `read` was made from.
        read: the answer of `next_read`.
        last: the greatest key of the page; None for an empty page. A reader of the log passes
            `Key(txid, position, LAST_ORDINAL)`.
        full: whether the page has as many rows as its limit, so that more may follow.

    Raises:
        ValueError: the page does not belong to the read.
    """
    if read.done != cursor.done or read.after != cursor.progress:
        raise ValueError(f"{read} was not made from {cursor}")
    if last is None:
        if full:
            raise ValueError("a full page has a last key")
    elif (read.after and last <= read.after) or (read.upto and last > read.upto):
        raise ValueError(f"{last} is outside {read}")
    if full:
        return Cursor(cursor.done, read.target, last)
    # Only a page without a bound that is not full ends a run. After a bound the upstream will have
    # more rows of the same run, and to end the run here would skip them.
    if read.upto is None:
        return Cursor(read.target)
    # Everything up to the bound is applied, even where the stream had no row. Readers downstream may
    # read as far, and the next poll starts from there.
    return Cursor(cursor.done, read.target, read.upto)


def passed_over(cursor: Cursor, gone: Snapshot) -> Cursor:
    """Return the cursor for which every row of some transactions counts as applied, too; never an earlier one.

    Args:
        cursor: the cursor of a reader.
        gone: the transactions, of which the stream has every row.
    """
    whole = cursor.whole
    if whole.includes(gone):
        return cursor
    done = whole.union(gone)
    if cursor.target is None or cursor.progress is None or done.visible(cursor.progress.txid):
        return Cursor(done)
    # Of the transaction that the run has reached, a part is applied: the run goes on.
    return Cursor(done, cursor.target.union(done), cursor.progress)
