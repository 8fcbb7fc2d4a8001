"""The cursor: which events a build has applied, and the rules by which it may move.

Commit order is not sequence order, so no single number can say what a reader has seen. A cursor is
a Postgres snapshot, `done`, as in PgQ (Skype), and while a *run* is open also the snapshot that it
is on its way to, `target`, with the key that it has reached, `progress`. All cursors, at any depth
of the graph, speak of the transactions that wrote the *log*.

A worker locks the build, then in a second statement (a snapshot of its own) takes the upstream's
cursor and the page that `next_read` allows, and writes the rows and the cursor from `advance` in
the same transaction. The log as an upstream is `Cursor(done=<current snapshot>.capped(<own txid>))`.
Nothing here does I/O; tests/model/stream/test_cursor_model.py shows what each rule is there for.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple, Self

LAST_ORDINAL = 2147483647
"""Greatest ordinal (a Postgres integer): `Key(txid, position, LAST_ORDINAL)` closes a log event."""

_SNAPSHOT = re.compile(r"([0-9]+):([0-9]+):((?:[0-9]+(?:,[0-9]+)*)?)")


class Key(NamedTuple):
    """Coordinates of a row: the order in which every stream is read.

    `txid` and `position` are those of the log event that the row comes from; `ordinal` tells apart
    the rows that one event became (0 in the log itself).
    """

    txid: int
    position: int
    ordinal: int


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
        """Whether `txid` had finished: `pg_visible_in_snapshot`. (Aborted ones have no rows.)"""
        return txid < self.xmax and (txid < self.xmin or not self._in_progress(txid))

    def includes(self, other: "Snapshot") -> bool:
        """Whether every txid visible in `other` is visible here: a superset, perhaps the same set."""
        return other.xmax <= self.xmax and all(x >= other.xmax or other._in_progress(x) for x in self.xip)

    def capped(self, own_txid: int, known: "Snapshot | None" = None) -> "Snapshot":
        """The part of this snapshot that a cursor written by transaction `own_txid` may speak of.

        Everything from `own_txid` on counts as not finished, whether it has finished or not:

        1. One's own txid is visible in one's own snapshot as soon as a later one has finished. A
           cursor that called it done would skip what this transaction appends after the page.
        2. After a server crash Postgres hands out again the txids that left nothing in the WAL; a
           cursor that called one done would skip the events of its second owner. No txid below
           `own_txid` can come back, for the cursor's own commit record carries `own_txid` and
           recovery starts above it. (Postgres also logs each commit and abort before a snapshot can
           show it, hence before that record; capped, the cursor does not depend on it.)

        Successive cursors of a build grow, because a later worker's txid is normally the greater
        one. A transaction that got its txid long before it locked the build may see less than the
        cursor already holds; `next_read` then tells it to wait.

        Args:
            own_txid: the transaction that writes the cursor.
            known: a cursor that it has found committed in the database. That commit precedes its own in the WAL,
                so that no txid below `known.xmax` can come back either, and this much may be called done too.
                A switch, which locks many builds and gets its txid with the first lock, could otherwise never
                cover those that move on before it has the last.
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
    """What a build has applied: all of `done`, and of the open run to `target` keys <= `progress`.

    Between runs `target` and `progress` are None. In a run, `progress` is None until a key was passed.
    """

    done: Snapshot
    target: Snapshot | None = None
    progress: Key | None = None

    def applied(self, key: Key) -> bool:
        """Whether the row of the stream at `key` has been applied."""
        if self.done.visible(key.txid):
            return True
        if self.target is None or self.progress is None:
            return False
        return key <= self.progress and self.target.visible(key.txid)

    def covers(self, other: "Cursor") -> bool:
        """Whether everything that `other` has applied is applied here too. May say no when unsure."""
        if other.target is None or other.progress is None:
            return self.done.includes(other.done)
        if self.done.includes(other.target):
            return True
        if self.target is None or self.progress is None:
            return False
        return self.done.includes(other.done) and self.target.includes(other.target) and self.progress >= other.progress


@dataclass(frozen=True, slots=True)
class Read:
    """What the next page may take of the stream, ordered by key.

    Rows visible in `target` and not in `done`, with `after` < key <= `upto`; None is no limit on
    that side.
    """

    done: Snapshot
    target: Snapshot
    after: Key | None
    upto: Key | None


def next_read(cursor: Cursor, upstream: Cursor) -> Read | None:
    """What a build at `cursor` may read of its upstream, or None: nothing to do, or wait.

    `upstream` must have been read before the rows of the page, or in the same snapshot: one read
    after them speaks of rows that the page did not see. The upstream may have been exchanged for
    another build of the same projection at any time, also for one that is behind.
    """
    target = cursor.target or _new_target(cursor.done, upstream)
    if target is None:
        return None
    if upstream.done.includes(target):
        return Read(cursor.done, target, cursor.progress, None)
    if upstream.target != target or upstream.progress is None:
        return None
    upto = _complete(upstream.progress)
    if cursor.progress is not None and upto <= cursor.progress:
        return None
    return Read(cursor.done, target, cursor.progress, upto)


def _new_target(done: Snapshot, upstream: Cursor) -> Snapshot | None:
    """Where a new run from `done` goes, or None."""
    # Without this test a reader that was switched to an upstream behind it would go backwards.
    if not upstream.done.includes(done):
        return None
    return upstream.target if done.includes(upstream.done) else upstream.done


def _complete(progress: Key) -> Key:
    """The last key up to which the output of a build at `progress` is complete.

    `progress` counts the ordinals of the build's *input*. When it stands inside an event, the rest
    of that event may still add rows with any ordinal, so its readers stop before the event.
    """
    if progress.ordinal == LAST_ORDINAL:
        return progress
    return Key(progress.txid, progress.position - 1, LAST_ORDINAL)


def advance(cursor: Cursor, read: Read, last: Key | None, full: bool) -> Cursor:
    """The cursor once a page of `read` has been applied.

    Args:
        cursor: the cursor that `read` was made from.
        read: what `next_read` allowed.
        last: greatest key of the page, None for an empty one. A reader of the log passes
            `Key(txid, position, LAST_ORDINAL)`.
        full: the page has as many rows as its limit, so there may be more.

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
    # Only an unbounded page that came back short ends a run: behind a bound the upstream has more
    # of the same run to come, and ending here would skip it.
    if read.upto is None:
        return Cursor(read.target)
    # Nothing is left up to the bound, also where the stream had no row: readers further down may
    # go as far, and the next poll need not look again.
    return Cursor(cursor.done, read.target, read.upto)
