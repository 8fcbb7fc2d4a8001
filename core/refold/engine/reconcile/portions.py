"""The quick audit of a table that is too large for one statement: a few of its slices at a time, and a mark.

A duty's statements are bounded, for meanwhile its worker does no other duty. A table whose rows take longer than that
would be read for as long, cancelled, and never audited. So once that has happened, each turn of the duty takes a
portion of the slices in a snapshot of its own, and goes on where the last one stopped. How much a portion is follows
from how long one takes; within it, a statement that is cancelled all the same is divided by blocks of the table, down
to a single one. A table of any size is audited in the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import psycopg
from psycopg.rows import class_row

from refold.engine.reconcile.audit import as_kept, parameters_of, quick, snapshot
from refold.model.sql_text import EVERYTHING
from refold.model.stream.slices import EVERY_SLICE, Range, partition, position_slice
from refold.model.upkeep.checksums import READ, actual, identity
from refold.store.builds import read_checksums as reads
from refold.store.builds.checksums import Disagreement, Side, compared, known_slices
from refold.store.builds.compiled import CompiledBuild

PORTION_S = 20.0
"""Seconds that a portion may take; the next is smaller when it took longer, larger when much less."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of `refold.quick_audits`: how far the quick audit of a large table has got.

    Args:
        together: slices in a portion.
        blocks: of the table in a statement; None for all of it.
        upto_slice: the last one that was audited in this round; None before the first.
        clean: whether all of them agreed.
    """

    build_id: int
    together: int
    blocks: int | None
    upto_slice: int | None
    clean: bool


@dataclass(frozen=True, slots=True)
class Portion:
    """What was looked at.

    Args:
        found: where checksums and rows disagree.
        whole: whether all of the table agrees, or would: this was the last portion of a round without a finding.
    """

    found: list[Disagreement]
    whole: bool


def next_portion(
    conn: psycopg.Connection, compiled: CompiledBuild, *, clock: Callable[[], float] = time.monotonic
) -> Portion:
    """Audits all of a build, or the next portion of one that is too large for that.

    Args:
        conn: acts as refold_worker, in autocommit mode, with statements that are bounded.
        compiled: the build's SQL.
        clock: seconds that only grow.

    Raises:
        BuildError: the build was replaced, or switched to another stream.
    """
    mark = _find(conn, compiled.build_id)
    if mark is None:
        begun = time.monotonic()
        try:
            return Portion(quick(conn, compiled), whole=True)
        except psycopg.errors.QueryCanceled:
            if not _timed_out(conn, begun, time.monotonic):
                raise
            known = len(known_slices(conn, compiled.build_id))
            mark = Mark(compiled.build_id, max(1, known // 4), None, None, True)
            _keep(conn, mark)
    started = clock()
    (_, high), *rest = _plan(conn, compiled, mark)
    part = ((None if mark.upto_slice is None else mark.upto_slice + 1, high if rest else None),)
    found, blocks = _look(conn, compiled, part, mark.blocks)
    clean = mark.clean and not found
    spent = clock() - started
    if spent > PORTION_S:
        together = max(1, mark.together // 2)
    elif spent < PORTION_S / 4:
        together = mark.together * 2
    else:
        together = mark.together
    if rest:
        _keep(conn, Mark(compiled.build_id, together, blocks, high, clean))
        return Portion(found, whole=False)
    if mark.upto_slice is None and blocks is None:
        # One portion was all of it: it is small enough, or by now.
        conn.execute("DELETE FROM refold.quick_audits WHERE build_id = %s", (compiled.build_id,))
    else:
        _keep(conn, Mark(compiled.build_id, together, None if blocks is None else blocks * 2, None, True))
    return Portion(found, whole=clean)


def _plan(conn: psycopg.Connection, compiled: CompiledBuild, mark: Mark) -> list[Range]:
    """The portions that are left of a round; together they have every slice that could be."""
    known = [one for one in known_slices(conn, compiled.build_id) if mark.upto_slice is None or one > mark.upto_slice]
    return partition(known, mark.together)


def _look(
    conn: psycopg.Connection, compiled: CompiledBuild, part: Sequence[Range], blocks: int | None
) -> tuple[list[Disagreement], int | None]:
    """The disagreements of a portion, in one snapshot; and how many blocks a statement could take."""
    found: list[Disagreement] = []
    with snapshot(conn):
        build = as_kept(conn, compiled)
        for at, relation in enumerate(compiled.statements.relations):
            scope = EVERYTHING if part == EVERY_SLICE else relation.slicing.scope(part)[1]
            sums, blocks = _sums(conn, relation.table, partial(actual, relation), scope, {}, blocks)
            side = Side(at, _SUMMED, f"slice {relation.slicing.held(part)}")
            found += compared(conn, compiled.build_id, side, _columns(sums))
        if part[0][1] is None:
            # With the last portion, what was read of the stream.
            parameters = parameters_of(conn, build)
            if compiled.stream.ordinal:
                sums, blocks = _sums(
                    conn, compiled.stream.table, partial(_read, compiled), EVERYTHING, parameters, blocks
                )
                found += compared(conn, compiled.build_id, Side(READ, _SUMMED), _columns(sums))
            else:
                # Of the log that is what is not sealed yet.
                found += reads.disagreements(conn, compiled, build, parameters)
    return found, blocks


def _read(compiled: CompiledBuild, condition: str) -> str:
    """What a build has to have read of its stream, another build's table (as in `read_checksums`)."""
    by_slice = compiled.statements.reads_by_slice
    slice_, hashed = (position_slice(), f"sum({identity()})") if by_slice else ("0", "0")
    return (
        f"SELECT {slice_} AS slice, count(*) AS rows, {hashed} AS hash\n"
        f"FROM {compiled.stream.table} WHERE {condition} AND {compiled.stream.applied()} GROUP BY 1"
    )


Sums = dict[int, tuple[int, int]]
"""Rows and the sum of their hashes, by slice."""
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
    """Whether a statement was cancelled because it took too long, not because the worker is to stop."""
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
    """The checksums of the rows that stand in a table, a few blocks at a time where all at once is too much.

    Args:
        conn: the caller's transaction, one snapshot.
        table: which.
        query: the checksums of the rows under a condition.
        scope: which rows.
        parameters: of the query.
        blocks: in a statement, from the start; None for all.
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
            "SELECT build_id, together, blocks, upto_slice, clean FROM refold.quick_audits WHERE build_id = %s",
            (build_id,),
        ).fetchone()


def _keep(conn: psycopg.Connection, mark: Mark) -> None:
    conn.execute(
        """
        INSERT INTO refold.quick_audits (build_id, together, blocks, upto_slice, clean) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (build_id) DO UPDATE SET
            together = excluded.together, blocks = excluded.blocks, upto_slice = excluded.upto_slice,
            clean = excluded.clean
        """,
        (mark.build_id, min(mark.together, 2**31 - 1), mark.blocks, mark.upto_slice, mark.clean),
    )
