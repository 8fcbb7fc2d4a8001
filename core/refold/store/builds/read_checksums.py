"""The comparison of the events that a build has read with those that its cursor covers.

Rows against kept checksums tell whether the table is what was written; this tells whether everything was written that
had to be, and once: an event that arrived behind the cursor, a page that was skipped or came twice. The other side are
the checksums of the log's sealed slices, of which the cursor must cover every transaction; what is not sealed yet is
read. A build on another's table reads that table. Dead letters count as what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from refold.model.stream.cursor import Key
from refold.model.stream.slices import EVERY_SLICE, POSITION_BITS, Range, by_position, position_slice
from refold.model.upkeep import checksums
from refold.model.upkeep.checksums import READ, identity
from refold.postgres.rows import one_row
from refold.store.builds.build import Build
from refold.store.builds.checksums import Disagreement, Side, compared, keep
from refold.store.builds.compiled import CompiledBuild

OPEN = 64
"""Most unsealed slices at the log's end that are compared; if there are more, none is."""


def disagreements(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    build: Build,
    parameters: Mapping[str, str],
    ranges: Sequence[Range] = EVERY_SLICE,
) -> list[Disagreement]:
    """Return the slices of the stream in which the build has read other events than its cursor covers.

    Args:
        conn: one snapshot of checksums, cursor and stream: a transaction in REPEATABLE READ, or under the build's lock.
        compiled: the build's SQL.
        build: the build, as that snapshot or lock shows it.
        parameters: its cursor and dead letters (`cursor_parameters`).
        ranges: which slices of the stream; all for a build whose reads are counted as a whole.
    """
    edge = _edge(conn, compiled, parameters)
    if edge.open > OPEN and ranges == EVERY_SLICE:
        if not compiled.statements.reads_by_slice:
            return []
        edge = _Edge(edge.unsealed, 0)
        ranges = ((None, edge.unsealed - 1),)
    return compared(conn, compiled.build_id, _side(compiled, edge, ranges), _with_edge(parameters, edge))


def compares_everything(conn: psycopg.Connection, compiled: CompiledBuild, parameters: Mapping[str, str]) -> bool:
    """Return whether `disagreements` compares all that the build has read, also at the log's end.

    Args:
        conn: the snapshot or lock of that comparison.
        compiled: the build's SQL.
        parameters: its cursor and dead letters.
    """
    return _edge(conn, compiled, parameters).open <= OPEN


def take(conn: psycopg.Connection, compiled: CompiledBuild, parameters: Mapping[str, str]) -> None:
    """Record that a build has read all events up to its cursor; only for a build that was just loaded or proved.

    Args:
        conn: a transaction that holds the build's lock.
        compiled: the build's SQL.
        parameters: its cursor and dead letters.
    """
    edge = _edge(conn, compiled, parameters)
    keep(conn, compiled.build_id, _side(compiled, edge, EVERY_SLICE), _with_edge(parameters, edge))


def slices_behind(
    conn: psycopg.Connection, compiled: CompiledBuild, parameters: Mapping[str, str], ranges: Sequence[Range]
) -> set[int]:
    """Return the slices of the build that contain the rows of some slices of its stream."""
    stream = compiled.stream
    scope, _ = by_position().scope(ranges)
    rows = conn.execute(
        f"SELECT DISTINCT {compiled.statements.relations[0].slicing.event} FROM {stream.table}"
        f" WHERE {scope} AND {stream.applied()}".encode(),
        parameters,
    ).fetchall()
    # None: a row that the build leaves out.
    return {int(number) for (number,) in rows if number is not None}


def forget(conn: psycopg.Connection, compiled: CompiledBuild, key: Key) -> None:
    """Remove a row that the build had read from its checksum, because it is now a dead letter.

    Args:
        conn: a transaction that holds the build's lock.
        compiled: the build's SQL.
        key: the row's coordinates.
    """
    _change(conn, compiled, key, gone=True)


def remember(conn: psycopg.Connection, compiled: CompiledBuild, key: Key) -> None:
    """Add a row to the checksum again, because it is no longer a dead letter.

    Args:
        conn: a transaction that holds the build's lock.
        compiled: the build's SQL.
        key: the row's coordinates.
    """
    _change(conn, compiled, key, gone=False)


def _change(conn: psycopg.Connection, compiled: CompiledBuild, key: Key, *, gone: bool) -> None:
    row = "(VALUES (%(position)s::bigint, %(ordinal)s::integer)) AS page (position, ordinal)"
    change = (
        checksums.read(row, gone=gone)
        if compiled.statements.reads_by_slice
        else checksums.counted("-1" if gone else "1")
    )
    conn.execute(
        checksums.move([change]).encode(),
        {"build": compiled.build_id, "position": key.position, "ordinal": key.ordinal},
    )


@dataclass(frozen=True, slots=True)
class _Edge:
    """The position from which on the log is not sealed for a cursor.

    Args:
        unsealed: the first slice that is not sealed, or of which the cursor need not cover everything.
        open: how many there are from there on.
    """

    unsealed: int
    open: int


def _edge(conn: psycopg.Connection, compiled: CompiledBuild, parameters: Mapping[str, str]) -> _Edge:
    if compiled.stream.ordinal:
        return _Edge(0, 0)
    # Slices are noted and sealed in order, so that those before the first that is not are all there.
    row = one_row(
        conn,
        """
        SELECT coalesce(min(s.slice) FILTER (
                   WHERE s.sealed_at IS NULL OR s.upto >= pg_snapshot_xmin(%(done)s::pg_snapshot)),
                   max(s.slice) + 1, 0),
               (SELECT last_value FROM refold.events_position)
        FROM refold.sealed_slices AS s
        """,
        parameters,
    )
    return _Edge(int(row[0]), (int(row[1]) >> POSITION_BITS) + 1 - int(row[0]))


def _with_edge(parameters: Mapping[str, str], edge: _Edge) -> dict[str, object]:
    return {**parameters, "unsealed": edge.unsealed}


def _side(compiled: CompiledBuild, edge: _Edge, ranges: Sequence[Range]) -> Side:
    stream = compiled.stream
    slicing = by_position()
    held = slicing.held(ranges)
    ordinal = "ordinal" if stream.ordinal else "0"
    condition = stream.applied()
    if ranges != EVERY_SLICE:
        condition = f"{slicing.scope(ranges)[0]}\n  AND {condition}"
    if not stream.ordinal:
        condition = f"position >= %(unsealed)s::bigint << {POSITION_BITS}\n  AND {condition}"
    parts = [
        f"SELECT {position_slice()} AS slice, count(*) AS rows, sum({identity(ordinal)}) AS hash\n"
        f"FROM {stream.table}\nWHERE {condition}\nGROUP BY 1"
    ]
    if not stream.ordinal:
        parts += [
            f"SELECT slice, events, ids FROM refold.sealed_slices WHERE slice < %(unsealed)s::integer AND slice {held}",
            f"SELECT {position_slice()} AS slice, -count(*), -sum({identity()}) FROM refold.dead_letters\n"
            f"WHERE build_id = {compiled.build_id} AND state <> 'released'\n"
            f"  AND {position_slice()} < %(unsealed)s::integer AND {position_slice()} {held}\nGROUP BY 1",
        ]
    together = "\nUNION ALL\n".join(parts)
    if not compiled.statements.reads_by_slice:
        return Side(
            READ, f"SELECT 0 AS slice, coalesce(sum(rows), 0)::bigint AS rows, 0 AS hash\nFROM ({together}) AS s"
        )
    return Side(
        READ,
        f"SELECT slice, sum(rows)::bigint AS rows, sum(hash) AS hash\nFROM ({together}) AS s GROUP BY slice",
        f"slice {held}",
    )
