"""The audit of a sink: is what the receiver has what the metric says?

The rows of both sides are hashed where they are, slice by slice, and compared. The auditor takes the lease first, and
opens the receiver with a new token, so that nobody else delivers meanwhile. Slices for which messages wait are left
out: what they lack is lag, not drift. Slices that differ are given anew by the next deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

import psycopg

from refold.model.sink import state as steps
from refold.model.sql_text import hash_of, ident, indent, literal
from refold.model.stream.slices import Range, partition
from refold.model.upkeep.statements import ROW_SEED
from refold.postgres.rows import one_row
from refold.sinks import read, stream
from refold.sinks.deliver import Deliverer
from refold.sinks.kinds.registry import reads_back
from refold.sinks.receiver import Audited, Checksum, Damaged, Readable
from refold.store import outbox, sinks
from refold.store.builds.build import Build, by_id
from refold.store.sinks import Sink

ROUNDS = 100
"""Most turns that deliver what waits before the audit."""
ROWS = 1_000_000
"""Rows of a portion, about: they are hashed in seconds."""


@dataclass(frozen=True, slots=True)
class SinkAudit:
    """The outcome of the audit of a sink.

    Args:
        sink: its name.
        projection: the metric.
        slices: number of slices that were compared.
        waiting: number of slices that were left out, because rows of them wait to be delivered.
        wrong: the slices that differ, in words, with the rows of the metric and of the receiver.
        skipped: why nothing was compared; None if it was.
    """

    sink: str
    projection: str
    slices: int = 0
    waiting: int = 0
    wrong: Sequence[tuple[str, int, int]] = ()
    skipped: str | None = None


def audit(conn: psycopg.Connection, deliverer: Deliverer, sink: Sink, *, dry_run: bool = False) -> SinkAudit:
    """Compare a metric with what the receiver of a sink has.

    Args:
        conn: the connection of the deliverer.
        deliverer: a deliverer of this process; it holds the sink afterwards, until it is released.
        sink: the sink.
        dry_run: report slices that differ; give none anew.

    Raises:
        DeliveryError: the receiver cannot be reached.
    """
    outcome = SinkAudit(sink.name, sink.projection)
    state, _ = sinks.state(conn, sink.sink_id)
    if state.condition != "active":
        return _skipped(outcome, f"it is {state.condition}")
    one, build = deliverer.seize(sink)
    if one is None or build is None:
        return _skipped(outcome, "its metric is not live, or the receiver is given everything anew")
    if not reads_back(sink.kind):
        return _skipped(outcome, f"a receiver of the kind {sink.kind} cannot be read back")
    for _ in range(ROUNDS):
        if sinks.state(conn, sink.sink_id)[0].following and not deliverer.waits(sink):
            break
        if not deliverer.turn(sink):
            break
    state, _ = sinks.state(conn, sink.sink_id)
    if not state.following or one.receiver is not deliverer.receiver_of(sink):
        return _skipped(outcome, state.error or "the receiver is given everything anew")
    source = deliverer.source(sink, build)
    there = set(cast(Audited, one.receiver).slices())
    ours: dict[int, Checksum] = {}
    theirs: dict[int, Checksum] = {}
    waiting: set[int] = set()
    # Nobody else delivers meanwhile. So the receiver stays as it is, and each portion may be of another moment.
    for portion in _portions(read.build_checksums(conn, build.build_id)):
        with deliverer.snapshot():
            state, _ = sinks.state(conn, sink.sink_id)
            waiting |= _waiting(conn, sink, source, build, state)
            ours |= _checksums(conn, source, portion)
        if not deliverer.keeps(sink):
            return _skipped(outcome, _OVERTAKEN)
        within = sorted(number for number in there if _within(number, portion))
        if hasattr(one.receiver, "checksums"):
            theirs |= cast(Audited, one.receiver).checksums(within)
        else:
            theirs |= _read(conn, source, cast(Readable, one.receiver), within)
        if not deliverer.keeps(sink):
            return _skipped(outcome, _OVERTAKEN)
    wrong = [
        (number, ours.get(number, _NOTHING).rows, theirs.get(number, _NOTHING).rows)
        for number in sorted(ours.keys() | theirs.keys())
        if number not in waiting and ours.get(number, _NOTHING) != theirs.get(number, _NOTHING)
    ]
    if wrong and not dry_run:
        deliverer.give_again(sink, [number for number, *_ in wrong])
    return SinkAudit(
        sink.name,
        sink.projection,
        len(ours.keys() | theirs.keys()) - len(waiting),
        len(waiting),
        [(source.slicing.name(number), here, there) for number, here, there in wrong],
    )


def _portions(kept: Mapping[int, tuple[int, int]]) -> list[Range]:
    """Return ranges of slices without gaps, each of so many rows that it is hashed well before the lease ends."""
    rows = sum(count for count, _ in kept.values())
    return partition(kept, max(1, len(kept) * ROWS // max(rows, 1)))


def _within(number: int, portion: Range) -> bool:
    low, high = portion
    return (low is None or number >= low) and (high is None or number <= high)


def _waiting(
    conn: psycopg.Connection, sink: Sink, source: read.Source, build: Build, state: steps.SinkState
) -> set[int]:
    """Return the slices with rows that were not delivered yet, in the caller's snapshot."""
    waiting = {
        slice_ for slice_, _ in outbox.read(conn, sink.sink_id, state.passed, source.shape.key, outbox.EVERY).keys
    }
    if state.cursor is not None:
        behind = stream.next_page(conn, by_id(conn, build.build_id), state.cursor, outbox.EVERY)
        waiting |= set() if behind is None else {slice_ for slice_, _ in behind.keys}
    return waiting


# What the other gave since is no drift.
_OVERTAKEN = "it was delivered by somebody else meanwhile, or its metric was switched"
_NOTHING = Checksum(0, 0)
_DAMAGED = Checksum(-1, 0)


def _read(
    conn: psycopg.Connection, source: read.Source, receiver: Readable, slices: Sequence[int]
) -> dict[int, Checksum]:
    """Return the checksums of rows that are read back from a receiver, hashed by this database."""
    columns = source.shape.columns
    hashed = hash_of([f"c{at}::{literal(column.type)}" for at, column in enumerate(columns)], seed=ROW_SEED)
    arrays = ", ".join(["%s::text[]"] * len(columns))
    names = ", ".join(f"c{at}" for at in range(len(columns)))
    query = f"SELECT count(*), coalesce(sum({hashed}), 0) FROM unnest({arrays}) AS given ({names})".encode()
    found: dict[int, Checksum] = {}
    for number in slices:
        rows, hash_ = 0, 0
        try:
            left = iter(receiver.rows(number))
            while part := list(islice(left, read.TOGETHER)):
                count, sum_ = one_row(conn, query, [list(one) for one in zip(*part, strict=True)])
                rows, hash_ = rows + int(count), hash_ + int(sum_)
        except (Damaged, psycopg.DataError):
            found[number] = _DAMAGED
        else:
            found[number] = Checksum(rows, hash_)
    return found


def _skipped(outcome: SinkAudit, because: str) -> SinkAudit:
    return SinkAudit(outcome.sink, outcome.projection, skipped=because)


def _checksums(conn: psycopg.Connection, source: read.Source, portion: Range) -> dict[int, Checksum]:
    """Return the checksums of the metric's rows as the receiver has them, by slice."""
    hashed = hash_of([f"v.{ident(column.name)}" for column in source.shape.columns], seed=ROW_SEED)
    rows = conn.execute(
        (
            f"SELECT slice__, count(*), sum({hashed})\n"
            f"FROM (\n{indent(source.view_of(source.scope((portion,))))}\n) AS v GROUP BY 1"
        ).encode()
    ).fetchall()
    return {int(number): Checksum(int(count), int(hash_)) for number, count, hash_ in rows}
