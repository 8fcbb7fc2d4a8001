"""What is in the way of a purge: whoever still needs the events of a segment, and what would prove that they are kept.

The same questions are asked three times: for the dry run, before the purge, and again under its locks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from refold.model.stream.slices import POSITION_BITS
from refold.postgres.rows import one_row
from refold.prose import counted
from refold.store import archives, bases
from refold.store.archives import Archive
from refold.store.bases import Folded
from refold.store.builds.build import BY_KEY, EVENT_GRAIN, Build, find
from refold.store.log import integrity
from refold.store.undelivered import POSITIONS


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What keeps a segment in the log.

    Args:
        reason: what is in the way.
        remedy: what to do.
        passes: whether workers remove it by themselves.
        own: whether a purge removes it itself, before anything goes.
        retired: whether it is a retired build, which `--drop-retired` removes.
    """

    reason: str
    remedy: str
    passes: bool = False
    own: bool = False
    retired: bool = False


def obstacles(conn: psycopg.Connection, lower: int, upper: int, name: str) -> list[Obstacle]:
    """Return what is in the way of purging a segment.

    Args:
        conn: acts as refold_worker or an inspector.
        lower: its first position.
        upper: the first position behind it.
        name: its table.
    """
    found = [*_of_log(conn, lower, upper, name)]
    archive = verified(conn, lower, upper)
    if archive is None:
        claimed = archives.claim_of(conn) is not None
        found.append(
            Obstacle(
                "the archive has no verified file of it",
                "Workers archive it: `refold archive status` tells how far they are."
                if claimed
                else "Workers archive it, once an archive is claimed: `refold archive claim`.",
                passes=claimed,
            )
        )
        return found
    folded = bases.every(conn)
    floor = integrity.floor(conn)
    for build in on_the_log(conn):
        found += _of_build(conn, build, folded, archive, floor)
    found += _of_letters(conn, lower, upper)
    found += _of_totals(conn, archive)
    found += _of_sinks(conn, archive)
    return found


def on_the_log(conn: psycopg.Connection) -> list[Build]:
    """Return the builds that read the log, and whose tables are there."""
    return find(conn, "b.upstream_id IS NULL AND b.state <> 'dropped'")


def verified(conn: psycopg.Connection, lower: int, upper: int) -> Archive | None:
    """Return the verified file of a segment; None if there is none."""
    found = archives.find(
        conn, "a.lower_position = %s AND a.upper_position = %s AND a.state = 'verified'", lower, upper
    )
    return found[0] if found else None


def covered(conn: psycopg.Connection, build: Build, archive: Archive) -> bool:
    """Return whether the cursor of a build covers every transaction that wrote into a segment."""
    row = one_row(
        conn,
        "SELECT coalesce(a.upto < pg_snapshot_xmin(%s::pg_snapshot), true) FROM refold.archives AS a"
        " WHERE a.lower_position = %s AND a.generation = %s",
        (build.done, archive.lower_position, archive.generation),
    )
    return bool(row[0])


def hinders(conn: psycopg.Connection, build: Build, archive: Archive) -> bool:
    """Return whether a retired build could not be brought back without the events of a segment."""
    return build.upkeep in BY_KEY or not build.loaded or not covered(conn, build, archive)


def hindering(conn: psycopg.Connection, segments: Iterable[tuple[int, int]]) -> list[Build]:
    """Return the retired builds that are in the way of some segments.

    Args:
        conn: acts as refold_worker.
        segments: for each its first position, and the first one behind it.
    """
    files = [found for lower, upper in segments if (found := verified(conn, lower, upper)) is not None]
    return [
        build
        for build in on_the_log(conn)
        if build.state == "retired" and any(hinders(conn, build, archive) for archive in files)
    ]


def _of_log(conn: psycopg.Connection, lower: int, upper: int, name: str) -> Iterator[Obstacle]:
    floor, lowest, unsealed, damaged, beyond, erasing = one_row(
        conn,
        b"""
        SELECT refold.log_floor(), (SELECT min(s.lower_position) FROM refold.segments AS s),
               (SELECT count(*) FROM refold.sealed_slices AS n
                WHERE n.sealed_at IS NULL AND n.slice <= %(last)s AND n.slice >= %(first)s),
               EXISTS (SELECT FROM refold.incidents AS i WHERE i.kind = 'log_damage' AND i.resolved_at IS NULL
                       AND i.subject IN (%(name)s, 'refold.events')),
               coalesce((SELECT max(n.slice) FROM refold.sealed_slices AS n WHERE n.sealed_at IS NOT NULL), -1)
                   >= %(last)s,
               EXISTS (SELECT FROM refold.erasures AS e WHERE e.step = 'log')
        """,
        {"first": lower >> POSITION_BITS, "last": (upper - 1) >> POSITION_BITS, "name": name},
    )
    if lowest < lower:
        yield Obstacle("an earlier segment is still in the log", "It is purged first.", passes=True, own=True)
    elif floor != lower:
        yield Obstacle(
            f"the segment at position {floor:,} is missing",
            "`refold scrub` tells more; `refold archive restore` or `refold scrub accept` ends it.",
        )
    if unsealed or not beyond:
        yield Obstacle("it is not sealed yet", "A transaction may still write into it: `refold status`.", passes=True)
    if erasing:
        yield Obstacle(
            "an erasure of a person is changing the log",
            "It is gone on with: `refold erase list` shows how far it is.",
            passes=True,
        )
    if damaged:
        yield Obstacle(
            "it is damaged",
            "Restore it with `refold archive restore`, or accept the damage with `refold scrub accept`.",
        )


def _of_build(
    conn: psycopg.Connection, build: Build, folded: Mapping[int, Folded], archive: Archive, floor: int
) -> Iterator[Obstacle]:
    name = build.projection
    if build.state == "retired":
        if hinders(conn, build, archive):
            yield Obstacle(
                f"the retired build {build.table_name} needs it for a rollback",
                "`refold archive purge --drop-retired` drops this build. No rollback leads to it then.",
                retired=True,
            )
            return
    elif build.upkeep in BY_KEY:
        yield Obstacle(
            f"{name} recomputes from all events of a key",
            "Let it read a projection with a row for each event, whose rows stay. Then run `refold deploy`.",
        )
        return
    elif not build.loaded:
        yield Obstacle(f"{build.table_name} is being loaded", "Wait until it is loaded: `refold status`.", passes=True)
        return
    elif not covered(conn, build, archive):
        yield Obstacle(f"{name} has not applied all of it", "Let workers catch up: `refold status`.", passes=True)
        return
    if build.floor != floor:
        yield Obstacle(
            f"the base of {build.table_name} ends at position {build.floor:,}, and the log begins at {floor:,}",
            "This database was put together from several backups: run `refold recover`.",
        )
    elif build.upkeep not in EVENT_GRAIN:
        yield from _of_base(build, folded.get(build.build_id), archive)


def _of_base(build: Build, mark: Folded | None, archive: Archive) -> Iterator[Obstacle]:
    if mark is None or mark.stale or mark.upto != archive.upper_position or mark.folded < mark.upto:
        counts = mark is not None and not mark.stale and mark.upto == archive.upper_position
        done = mark.folded - archive.lower_position if mark is not None and counts else 0
        share = 100 * done // (archive.upper_position - archive.lower_position)
        yield Obstacle(
            f"{build.projection} has folded {share} % of it",
            "Workers go on, or `refold archive purge`.",
            passes=True,
            own=True,
        )


def _of_letters(conn: psycopg.Connection, lower: int, upper: int) -> Iterator[Obstacle]:
    (waiting,) = one_row(
        conn,
        """
        SELECT count(*) FROM refold.dead_letters AS d JOIN refold.builds AS b USING (build_id)
        WHERE b.upstream_id IS NULL AND b.state <> 'dropped' AND d.state = 'waiting' AND d.event IS NULL
          AND d.position >= %s AND d.position < %s
        """,
        (lower, upper),
    )
    if waiting:
        yield Obstacle(
            f"{counted(waiting, 'dead letter')} of it still needs its event",
            "Workers copy it, or `refold archive purge`.",
            passes=True,
            own=True,
        )


def counts(conn: psycopg.Connection, archive: Archive) -> bool:
    """Return whether the totals may still have to count events of a segment."""
    found = conn.execute(
        "SELECT FROM refold.counted_events AS c, refold.archives AS a"
        " WHERE a.lower_position = %s AND a.generation = %s AND a.upto >= pg_snapshot_xmin(c.done)",
        (archive.lower_position, archive.generation),
    ).rowcount
    return found > 0


def _of_totals(conn: psycopg.Connection, archive: Archive) -> Iterator[Obstacle]:
    if counts(conn, archive):
        yield Obstacle(
            "not all of its events are counted in the totals",
            "Workers count them, or `refold archive purge`.",
            passes=True,
            own=True,
        )


@dataclass(frozen=True, slots=True)
class _Behind:
    name: str
    paused: bool
    placed: bool
    waiting: int


def _of_sinks(conn: psycopg.Connection, archive: Archive) -> Iterator[Obstacle]:
    """Yield the sinks that give rows of events once, and have not given those of this segment."""
    with conn.cursor(row_factory=class_row(_Behind)) as cursor:
        rows = cursor.execute(
            f"""
            SELECT k.name, n.condition = 'paused' AS paused, n.build_id IS NOT NULL AND n.done IS NOT NULL AS placed,
                   w.waiting
            FROM refold.sinks AS k
            JOIN refold.sinks_now AS n USING (sink_id)
            JOIN refold.archives AS a ON a.lower_position = %(lower)s AND a.generation = %(generation)s
            CROSS JOIN LATERAL (
                SELECT count(*) AS waiting FROM ({POSITIONS}) AS u
                WHERE u.sink_id = k.sink_id AND u.position >= a.lower_position AND u.position < a.upper_position
            ) AS w
            WHERE k.grain = 'events'
              -- A sink that compares slices has no place in its stream.
              AND (w.waiting > 0 OR n.build_id IS NOT NULL AND n.done IS NOT NULL
                   AND a.upto >= pg_snapshot_xmin(n.done::pg_snapshot))
            ORDER BY k.name
            """.encode(),
            {"lower": archive.lower_position, "generation": archive.generation},
        ).fetchall()
    for one in rows:
        let_go = f"`refold sinks skip {one.name} --to {archive.upper_position}`"
        if one.waiting:
            if not one.placed:
                let_go = f"`refold sinks undelivered {one.name} --drop --reason TEXT`"
            yield Obstacle(
                f"sink {one.name}: its receiver refuses {counted(one.waiting, 'row')} of it",
                f"`refold sinks undelivered {one.name}` shows them, and --retry delivers them; {let_go} lets them go.",
            )
        else:
            yield Obstacle(
                f"sink {one.name} has not delivered all of it",
                (
                    f"`refold sinks resume {one.name}` lets it deliver"
                    if one.paused
                    else f"Let it deliver: `refold sinks show {one.name}`"
                )
                + f"; {let_go} lets go of what it has not.",
                passes=not one.paused,
            )
