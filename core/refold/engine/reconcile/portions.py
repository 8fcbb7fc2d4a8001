"""The quick audit of a table that is too large for one statement: a portion of slices at a time, with a mark.

A duty's statements have a time limit, because its worker does no other duty meanwhile. Without portions, the audit of a
large table would be cancelled at every attempt. So after a cancelled attempt, each run of the duty audits a portion of
the slices in its own snapshot, and the next run continues. The duration of a portion determines the size of the next.
A statement that is cancelled within a portion is divided by blocks of the table, down to a single block. So a table of
any size is audited in the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

import psycopg
from psycopg.rows import class_row

from refold.engine.reconcile.audit import as_kept, parameters_of, quick, record_quick, snapshot
from refold.model.sql_text import EVERYTHING
from refold.model.stream.slices import EVERY_SLICE, Range, partition, position_slice
from refold.model.upkeep.checksums import READ, actual, identity
from refold.postgres.rows import one_row
from refold.store.builds import read_checksums as reads
from refold.store.builds.checksums import Disagreement, Side, compared, known_slices
from refold.store.builds.compiled import CompiledBuild

PORTION_S = 20.0
"""Seconds for a portion: after a longer one the next is smaller, and after a much shorter one larger."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of `refold.quick_audits`: the progress of the quick audit of a large table.

    Args:
        together: slices in a portion.
        blocks: blocks of the table in a statement; None for the whole table.
        upto_slice: the last slice that was audited in this round; None before the first.
        clean: whether all slices of this round agreed so far.
        began_at: start of the transaction of the first portion of this round; None before it, or if it is not known.
    """

    build_id: int
    together: int
    blocks: int | None
    upto_slice: int | None
    clean: bool
    began_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Portion:
    """The outcome of a portion.

    Args:
        found: the slices whose rows differ from their checksums.
        whole: whether the portion completes an audit of the whole table; False if an earlier portion of its round
            had findings.
    """

    found: list[Disagreement]
    whole: bool


def next_portion(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    *,
    clock: Callable[[], float] = time.monotonic,
    proves: bool = False,
) -> Portion:
    """Run the quick audit of a build, or of its next portion if it is too large, and return the findings.

    Args:
        conn: acts as refold_worker, in autocommit mode, with a statement_timeout.
        compiled: the build's SQL.
        clock: returns monotonic seconds.
        proves: whether to record a proof at the end of a round in which no slice differed.

    Raises:
        BuildError: the build was replaced, or switched to another stream.
    """
    mark = _find(conn, compiled.build_id)
    if mark is None:
        begun = time.monotonic()
        try:
            return Portion(quick(conn, compiled, proves=proves), whole=True)
        except psycopg.errors.QueryCanceled:
            if not _timed_out(conn, begun, time.monotonic):
                raise
            known = len(known_slices(conn, compiled.build_id))
            mark = Mark(compiled.build_id, max(1, known // 4), None, None, True)
            _keep(conn, mark)
    started = clock()
    (_, high), *rest = _plan(conn, compiled, mark)
    part = ((None if mark.upto_slice is None else mark.upto_slice + 1, high if rest else None),)
    found, blocks, began_at = _look(conn, compiled, part, mark, proves=proves)
    clean = mark.clean and not found
    spent = clock() - started
    if spent > PORTION_S:
        together = max(1, mark.together // 2)
    elif spent < PORTION_S / 4:
        together = mark.together * 2
    else:
        together = mark.together
    if rest:
        _keep(conn, Mark(compiled.build_id, together, blocks, high, clean, began_at))
        return Portion(found, whole=False)
    if mark.upto_slice is None and blocks is None:
        # A single portion covered the table, so it is small enough now.
        conn.execute("DELETE FROM refold.quick_audits WHERE build_id = %s", (compiled.build_id,))
    else:
        _keep(conn, Mark(compiled.build_id, together, None if blocks is None else blocks * 2, None, True))
    return Portion(found, whole=clean)


def _plan(conn: psycopg.Connection, compiled: CompiledBuild, mark: Mark) -> list[Range]:
    """Return the portions that are left of a round; together they cover all possible slices."""
    known = [one for one in known_slices(conn, compiled.build_id) if mark.upto_slice is None or one > mark.upto_slice]
    return partition(known, mark.together)


def _look(
    conn: psycopg.Connection, compiled: CompiledBuild, part: Sequence[Range], mark: Mark, *, proves: bool
) -> tuple[list[Disagreement], int | None, datetime | None]:
    """Return the findings of a portion, in one snapshot; the blocks that fit into a statement; when the round began."""
    found: list[Disagreement] = []
    blocks = mark.blocks
    began_at = mark.began_at
    with snapshot(conn):
        if mark.upto_slice is None:
            began_at = one_row(conn, "SELECT now()")[0]
        build = as_kept(conn, compiled)
        for at, relation in enumerate(compiled.statements.kept):
            scope = EVERYTHING if part == EVERY_SLICE else relation.slicing.scope(part)[1]
            sums, blocks = _sums(conn, relation.table, partial(actual, relation), scope, {}, blocks)
            side = Side(at, _SUMMED, f"slice {relation.slicing.held(part)}")
            found += compared(conn, compiled.build_id, side, _columns(sums))
        if part[0][1] is None:
            # The last portion also checks the rows that were read from the stream.
            parameters = parameters_of(conn, build)
            if compiled.stream.ordinal:
                sums, blocks = _sums(
                    conn, compiled.stream.table, partial(_read, compiled), EVERYTHING, parameters, blocks
                )
                found += compared(conn, compiled.build_id, Side(READ, _SUMMED), _columns(sums))
            else:
                # Of the log this reads only the slices that are not sealed yet.
                found += reads.disagreements(conn, compiled, build, parameters)
            if proves and mark.clean and not found and began_at is not None:
                record_quick(conn, compiled, build, began_at=began_at)
    return found, blocks, began_at


def _read(compiled: CompiledBuild, condition: str) -> str:
    """Return a query for the checksums of the rows that a build must have read from another build's table."""
    by_slice = compiled.statements.reads_by_slice
    slice_, hashed = (position_slice(), f"sum({identity()})") if by_slice else ("0", "0")
    return (
        f"SELECT {slice_} AS slice, count(*) AS rows, {hashed} AS hash\n"
        f"FROM {compiled.stream.table} WHERE {condition} AND {compiled.stream.applied()} GROUP BY 1"
    )


Sums = dict[int, tuple[int, int]]
"""Number of rows and sum of their hashes, by slice."""
_SUMMED = (
    "SELECT * FROM unnest(%(slices)s::integer[], %(counts)s::bigint[], %(hashes)s::numeric[]) AS s (slice, rows, hash)"
)


def _columns(sums: Sums) -> dict[str, object]:
    return {
        "slices": list(sums),
        "counts": [count for count, _ in sums.values()],
        "hashes": [Decimal(hashed) for _, hashed in sums.values()],
    }


def _timed_out(conn: psycopg.Connection, started: float, clock: Callable[[], float]) -> bool:
    """Return whether a statement was cancelled by its time limit, and not because the worker stops."""
    row = conn.execute("SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'").fetchone()
    return row is not None and 0 < row[0] <= (clock() - started) * 1000 + 1


def _sums(
    conn: psycopg.Connection,
    table: str,
    query: Callable[[str], str],
    scope: str,
    parameters: Mapping[str, str],
    blocks: int | None,
) -> tuple[Sums, int | None]:
    """Return the checksums of the rows in a table, and the blocks that fit into a statement.

    Args:
        conn: the caller's transaction, with one snapshot.
        table: name of the table.
        query: makes the query for the checksums of the rows under a condition.
        scope: condition on the rows.
        parameters: parameters of the query.
        blocks: blocks of the first statements; None for the whole table.
    """
    sums: Sums = {}
    first, end = 0, max(_blocks(conn, table), 1)
    if blocks is not None and blocks >= end:
        blocks = None
    while first < end:
        last = end if blocks is None else first + blocks
        condition = f"({scope})"
        if first or last < end:
            # The last statement has no end: the table may have grown since its blocks were counted.
            upto = f" AND ctid < '({last},0)'" if last < end else ""
            condition += f" AND ctid >= '({first},0)'{upto}"
        started = time.monotonic()
        try:
            with conn.transaction():
                rows = conn.execute(query(condition).encode(), parameters).fetchall()
        except psycopg.errors.QueryCanceled:
            if last - first <= 1 or not _timed_out(conn, started, time.monotonic):
                raise
            blocks = (last - first) // 2
            continue
        for number, count, hashed in rows:
            before = sums.get(number, (0, 0))
            sums[number] = before[0] + int(count), before[1] + int(hashed or 0)
        first = last
    return sums, blocks


def _blocks(conn: psycopg.Connection, table: str) -> int:
    row = conn.execute(
        "SELECT pg_relation_size(%s::regclass) / current_setting('block_size')::bigint", (table,)
    ).fetchone()
    assert row is not None
    return int(row[0])


def _find(conn: psycopg.Connection, build_id: int) -> Mark | None:
    with conn.cursor(row_factory=class_row(Mark)) as cursor:
        return cursor.execute(
            "SELECT build_id, together, blocks, upto_slice, clean, began_at FROM refold.quick_audits"
            " WHERE build_id = %s",
            (build_id,),
        ).fetchone()


def _keep(conn: psycopg.Connection, mark: Mark) -> None:
    conn.execute(
        """
        INSERT INTO refold.quick_audits (build_id, together, blocks, upto_slice, clean, began_at)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (build_id) DO UPDATE SET
            together = excluded.together, blocks = excluded.blocks, upto_slice = excluded.upto_slice,
            clean = excluded.clean, began_at = excluded.began_at
        """,
        (mark.build_id, min(mark.together, 2**31 - 1), mark.blocks, mark.upto_slice, mark.clean, mark.began_at),
    )
