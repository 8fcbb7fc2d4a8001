"""The deep audit in steps: every slice there is or could be, and a mark of how far it has got."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.model.stream.slices import HASH_BITS, POSITION_BITS, Range, partition
from refold.store.builds.checksums import known_slices
from refold.store.builds.compiled import CompiledBuild

TOGETHER = {"day": 7, "position": 8, "hash": 8}
"""Slices in a step."""
WHOLE_STREAM = 10_000_000
"""Rows of the stream for each pass through it, where no index finds those of a slice."""
STALE_H = 24
"""Hours after which an interrupted audit starts from the beginning."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of `refold.audits`: how far the deep audit of a build has got."""

    build_id: int
    rolling: bool
    began_at: datetime
    stepped_at: datetime
    upto_slice: int | None
    steps: int
    finished_at: datetime | None


def steps(conn: psycopg.Connection, compiled: CompiledBuild, *, resume: bool) -> Iterator[Sequence[Range]]:
    """The steps of a deep audit that somebody asked for. One that is taken up within a day goes on where it stopped.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiled: the build.
        resume: leave a mark after every step, and begin behind one.
    """
    mark = find_mark(conn, compiled.build_id, rolling=False) if resume else None
    if resume and (mark is None or mark.finished_at is not None or _stale(conn, mark)):
        mark = begin(conn, compiled.build_id, mark, rolling=False)
    for one in plan(conn, compiled, mark.upto_slice if mark else None):
        yield (one,)
        # Somebody else may be at the same audit by now; then the mark is theirs.
        mark = mark and advance(conn, mark, one)


def plan(conn: psycopg.Connection, compiled: CompiledBuild, after: int | None) -> list[Range]:
    """All slices behind one, in portions of bounded work; nothing that could be is left out."""
    slicing = compiled.statements.relations[0].slicing
    known = known_slices(conn, compiled.build_id)
    together = TOGETHER[slicing.kind]
    if slicing.kind == "hash":
        known = list(range(-(2 ** (HASH_BITS - 1)), 2 ** (HASH_BITS - 1)))
        if not slicing.indexed:
            together = max(1, len(known) // (1 + _estimate(conn, compiled) // WHOLE_STREAM))
    elif slicing.kind == "position":
        # As far as there are events, also where the checksums know of none.
        known = list(range((max(known) if known else _last(conn, compiled)) + 1))
        together = 1 if compiled.transform is not None else together
    if after is None:
        return partition(known, together)
    (_, high), *rest = partition([number for number in known if number > after], together)
    return [(after + 1, high), *rest]


def find_mark(conn: psycopg.Connection, build_id: int, *, rolling: bool) -> Mark | None:
    """How far an audit has got."""
    with conn.cursor(row_factory=class_row(Mark)) as cursor:
        return cursor.execute(
            "SELECT * FROM refold.audits WHERE build_id = %s AND rolling = %s", (build_id, rolling)
        ).fetchone()


def begin(conn: psycopg.Connection, build_id: int, instead: Mark | None, *, rolling: bool) -> Mark | None:
    """Starts a deep audit from the first slice.

    Args:
        conn: acts as refold_worker.
        build_id: of which build.
        instead: the mark that was found, which this puts an end to.
        rolling: whose audit.

    Returns:
        None when somebody else has moved the mark meanwhile: theirs stands.
    """
    with conn.cursor(row_factory=class_row(Mark)) as cursor:
        return cursor.execute(
            """
            INSERT INTO refold.audits AS a (build_id, rolling) VALUES (%(build)s, %(rolling)s)
            ON CONFLICT (build_id, rolling) DO UPDATE SET
                began_at = clock_timestamp(), stepped_at = clock_timestamp(), upto_slice = NULL, steps = 0,
                finished_at = NULL
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
    """Notes that the next step is tried now; None when somebody else has moved the mark meanwhile."""
    # A beginning in the future was written by a clock that was ahead: steps would be due when that has come.
    return _moved(conn, mark, "stepped_at = clock_timestamp(), began_at = least(began_at, clock_timestamp())", {})


def advance(conn: psycopg.Connection, mark: Mark, done: Range) -> Mark | None:
    """Notes that a step is done; the one without an end was the last.

    Who was taken for lost, and whose step another has done meanwhile, must not move the mark: the next step would be
    skipped, or done again.

    Args:
        conn: acts as refold_worker.
        mark: as it was when the step began.
        done: the slices of the step.

    Returns:
        None when somebody else has moved the mark meanwhile.
    """
    changes = """
        upto_slice = %(upto)s::integer, steps = steps + 1, stepped_at = clock_timestamp(),
        finished_at = CASE WHEN %(upto)s::integer IS NULL THEN clock_timestamp() END
    """
    return _moved(conn, mark, changes, {"upto": done[1]})


def _moved(conn: psycopg.Connection, mark: Mark, changes: str, parameters: Mapping[str, object]) -> Mark | None:
    """Changes a mark, if it is still the one that was read."""
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
    # On either side of now: see `touch`.
    row = conn.execute(
        "SELECT abs(extract(epoch FROM clock_timestamp() - %s)) > %s", (mark.began_at, STALE_H * 3600)
    ).fetchone()
    return row is not None and bool(row[0])


def _last(conn: psycopg.Connection, compiled: CompiledBuild) -> int:
    """The last slice of positions that the stream has."""
    row = conn.execute(f"SELECT coalesce(max(position), 0) FROM {compiled.stream.table}".encode()).fetchone()
    assert row is not None
    return int(row[0]) >> POSITION_BITS


def _estimate(conn: psycopg.Connection, compiled: CompiledBuild) -> int:
    """About how many rows the stream has, from the planner's statistics."""
    row = conn.execute(
        """
        SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_class AS c
        WHERE c.oid = %s::regclass OR c.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass)
        """,
        (compiled.stream.table, compiled.stream.table),
    ).fetchone()
    return int(row[0]) if row else 0
