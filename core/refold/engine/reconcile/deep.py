"""The deep audit in steps over all possible slices, with a mark of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.model.stream.slices import HASH_BITS, POSITION_BITS, Range, partition
from refold.store.builds import proofs
from refold.store.builds.build import by_id
from refold.store.builds.checksums import known_slices
from refold.store.builds.compiled import CompiledBuild

TOGETHER = {"day": 7, "position": 8, "hash": 8}
"""Slices in a step, by the kind of slicing."""
WHOLE_STREAM = 10_000_000
"""Rows of the stream for each pass over it, if no index finds the rows of a slice."""
STALE_H = 24
"""Hours after which an interrupted audit starts from the beginning."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of `refold.audits`: the progress of the deep audit of a build."""

    build_id: int
    rolling: bool
    began_at: datetime
    stepped_at: datetime
    upto_slice: int | None
    steps: int
    finished_at: datetime | None
    differed: int


def steps(
    conn: psycopg.Connection, compiled: CompiledBuild, *, resume: bool, differed: Callable[[], int] = lambda: 0
) -> Iterator[Sequence[Range]]:
    """Yield the steps of a deep audit by a command; an audit that was interrupted within a day continues.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiled: the build.
        resume: continue after the mark of an interrupted audit, and set a mark after every step.
        differed: returns the number of slices that differed in the step that was yielded last, and are healed.
    """
    mark = find_mark(conn, compiled.build_id, rolling=False) if resume else None
    if resume and (mark is None or mark.finished_at is not None or _stale(conn, mark)):
        mark = begin(conn, compiled.build_id, mark, rolling=False)
    for one in plan(conn, compiled, mark.upto_slice if mark else None):
        yield (one,)
        # Another session may run the same audit by now; then it owns the mark.
        mark = mark and advance(conn, mark, one, differed=differed())


def plan(conn: psycopg.Connection, compiled: CompiledBuild, after: int | None) -> list[Range]:
    """Return all possible slices after one, in portions of bounded work."""
    slicing = compiled.statements.relations[0].slicing
    known = known_slices(conn, compiled.build_id)
    together = TOGETHER[slicing.kind]
    if slicing.kind == "hash":
        known = list(range(-(2 ** (HASH_BITS - 1)), 2 ** (HASH_BITS - 1)))
        if not slicing.indexed:
            together = max(1, len(known) // (1 + _estimate(conn, compiled) // WHOLE_STREAM))
    elif slicing.kind == "position":
        # Up to the last event, also if there are no checksums.
        known = list(range((max(known) if known else _last(conn, compiled)) + 1))
        together = 1 if compiled.transform is not None else together
    if after is None:
        return partition(known, together)
    (_, high), *rest = partition([number for number in known if number > after], together)
    return [(after + 1, high), *rest]


def find_mark(conn: psycopg.Connection, build_id: int, *, rolling: bool) -> Mark | None:
    """Return the mark of an audit; None if there is none."""
    with conn.cursor(row_factory=class_row(Mark)) as cursor:
        return cursor.execute(
            "SELECT * FROM refold.audits WHERE build_id = %s AND rolling = %s", (build_id, rolling)
        ).fetchone()


def begin(conn: psycopg.Connection, build_id: int, instead: Mark | None, *, rolling: bool) -> Mark | None:
    """Start a deep audit from the first slice, and return its mark.

    Args:
        conn: acts as refold_worker.
        build_id: id of the build.
        instead: the mark that was found, which the new one replaces.
        rolling: whether this is the rolling audit of the workers, or an audit by a command.

    Returns:
        The mark; None if another session has moved it meanwhile.
    """
    with conn.cursor(row_factory=class_row(Mark)) as cursor:
        return cursor.execute(
            """
            INSERT INTO refold.audits AS a (build_id, rolling) VALUES (%(build)s, %(rolling)s)
            ON CONFLICT (build_id, rolling) DO UPDATE SET
                began_at = clock_timestamp(), stepped_at = clock_timestamp(), upto_slice = NULL, steps = 0,
                finished_at = NULL, differed = 0
            WHERE (a.began_at, a.steps) = (%(began)s::timestamptz, %(steps)s::integer)
            RETURNING *
            """,
            {
                "build": build_id,
                "rolling": rolling,
                "began": None if instead is None else instead.began_at,
                "steps": None if instead is None else instead.steps,
            },
        ).fetchone()


def touch(conn: psycopg.Connection, mark: Mark) -> Mark | None:
    """Record that the next step is tried now; return the mark, or None if another session has moved it meanwhile."""
    # A clock that was ahead has stored a start in the future, and no step would be due before that.
    return _moved(conn, mark, "stepped_at = clock_timestamp(), began_at = least(began_at, clock_timestamp())", {})


def advance(conn: psycopg.Connection, mark: Mark, done: Range, *, differed: int = 0) -> Mark | None:
    """Record that a step is done; a step without an end was the last, and proves the build.

    If another session has done the step meanwhile, the mark must not move: the next step would be skipped or repeated.

    Args:
        conn: acts as refold_worker.
        mark: the mark from before the step.
        done: the slices of the step.
        differed: how many of them differed; they are healed.

    Returns:
        The new mark; None if another session has moved it meanwhile.
    """
    changes = """
        upto_slice = %(upto)s::integer, steps = steps + 1, stepped_at = clock_timestamp(),
        differed = differed + %(differed)s::integer,
        finished_at = CASE WHEN %(upto)s::integer IS NULL THEN clock_timestamp() END
    """
    with conn.transaction():
        moved = _moved(conn, mark, changes, {"upto": done[1], "differed": differed})
        if moved is not None and moved.finished_at is not None:
            # Its stream is the one of all steps: the mark would be gone if that had changed (see begin_again).
            build = by_id(conn, mark.build_id)
            proofs.add(conn, build, "deep", began_at=moved.began_at, differed=moved.differed)
    return moved


def _moved(conn: psycopg.Connection, mark: Mark, changes: str, parameters: Mapping[str, object]) -> Mark | None:
    """Change a mark if it is still as it was read, and return it; None otherwise."""
    with conn.cursor(row_factory=class_row(Mark)) as cursor:
        return cursor.execute(
            f"""
            UPDATE refold.audits SET {changes}
            WHERE build_id = %(build)s AND rolling = %(rolling)s
              AND (began_at, steps) = (%(began)s, %(steps)s) AND finished_at IS NULL
            RETURNING *
            """.encode(),
            {
                **parameters,
                "build": mark.build_id,
                "rolling": mark.rolling,
                "began": mark.began_at,
                "steps": mark.steps,
            },
        ).fetchone()


def _stale(conn: psycopg.Connection, mark: Mark) -> bool:
    # In the past or, after a clock that was ahead (see `touch`), in the future.
    row = conn.execute(
        "SELECT abs(extract(epoch FROM clock_timestamp() - %s)) > %s", (mark.began_at, STALE_H * 3600)
    ).fetchone()
    return row is not None and bool(row[0])


def _last(conn: psycopg.Connection, compiled: CompiledBuild) -> int:
    """Return the slice of the last position in the stream."""
    row = conn.execute(f"SELECT coalesce(max(position), 0) FROM {compiled.stream.table}".encode()).fetchone()
    assert row is not None
    return int(row[0]) >> POSITION_BITS


def _estimate(conn: psycopg.Connection, compiled: CompiledBuild) -> int:
    """Return the estimated rows of the stream, from the planner's statistics."""
    row = conn.execute(
        """
        SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class AS c
        WHERE c.oid = %s::regclass OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass)
        """,
        (compiled.stream.table, compiled.stream.table),
    ).fetchone()
    return int(row[0]) if row else 0
