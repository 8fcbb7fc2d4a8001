"""A portion of an erasure: events of the log, the ledger, sealed checksums and all builds, in one transaction.

So the one law holds at every instant, and a kill leaves all of a portion or nothing. Builds are locked first, as by any
healing. The metrics come out of the ordinary healing, for the slices of the events as they were and as they are.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from refold.engine.erasure.differences import Metrics, taken_from_repairs
from refold.engine.erasure.rows import Mine, change_rows, parameters_of_change, rename
from refold.engine.purge import fold
from refold.engine.reconcile.audit import parameters_of
from refold.engine.reconcile.heal import heal, lock_downwards
from refold.engine.reconcile.log_proof import LogProof
from refold.engine.reconcile.purged import agreeing
from refold.model.erasure import TOKEN
from refold.model.stream.slices import POSITION_BITS, runs
from refold.model.upkeep import checksums as checksum_sql
from refold.postgres.failpoints import failpoint
from refold.postgres.rows import one_row
from refold.postgres.session import plan_freely
from refold.postgres.sqlstate import caused_by_event
from refold.store import archives, erasures
from refold.store.builds import dead_letters
from refold.store.builds.build import Build, by_id, find
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.first_load import start_over
from refold.store.erasures import Erasure, Target
from refold.store.log.integrity import Damage, LogDamaged, floor
from refold.store.log.seal import SliceChecksum, agree, sealed, segments
from refold.store.log.seal import standing as standing_events

WHY = "the event was erased"
"""Reason of dead letters that an erasure drops, and what stands in the place of their errors."""


@dataclass(slots=True)
class Changed:
    """What a portion has changed.

    Args:
        slices: slices of the log with events of the portion.
        sealed: those of them whose sealed checksums were computed by subtraction, and proved.
        metrics: the difference for each projection.
        letters: dead letters of these events that were dropped or removed.
    """

    slices: list[int]
    sealed: list[int]
    metrics: Metrics
    letters: int


def change(
    conn: psycopg.Connection,
    compiler: Compiler,
    erasure: Erasure,
    targets: Sequence[Target],
    token: str,
    proof: LogProof,
) -> Changed:
    """Change some events and all that depends on them.

    Args:
        conn: acts as refold_worker, in the caller's transaction; its login may act as refold_owner.
        compiler: makes the SQL of the builds, with the code of transforms.
        erasure: the erasure.
        targets: the events.
        token: what stands in the place of the person.
        proof: the parts of the log that were verified in this run.

    Raises:
        BuildError: the code of a transform is missing, or a build cannot be healed.
        LogDamaged: the log is not what was written, so that it cannot be changed by subtraction.
    """
    plan_freely(conn)
    builds = locked(conn)
    compiled = {build.build_id: compiler.of(conn, build) for build in builds}
    mine = Mine([one.position for one in targets])
    # Nobody seals what is about to change.
    conn.execute("LOCK TABLE refold.sealed_slices IN EXCLUSIVE MODE")
    before = mine.checksums(conn)
    roots = [build for build in builds if build.upstream_id is None]
    loaded = [build for build in roots if build.loaded]
    touched = {build.build_id: _slices(conn, compiled[build.build_id], build, mine) for build in loaded}
    # The border of what was purged may lie inside a slice. Of its rows below, the log tells and changes nothing.
    agreed = {one.build_id: agreeing(conn, compiled[one.build_id], one, touched[one.build_id]) for one in loaded}
    if erasure.mode == "delete":
        gone = Mine([one.position for one in targets if not one.mention])
        for build in loaded:
            _unread(conn, compiled[build.build_id], build, gone)
        _forget_letters(conn, builds, gone)
    ids = _new_ids(conn, mine, targets)
    _change_log(conn, erasure, mine, token, ids)
    failpoint("erasure_log")
    proved = _reseal(conn, before, mine.checksums(conn))
    slices = sorted(before)
    archives.outdate(conn, [number for number in slices if number in proved])
    for build in loaded:
        touched[build.build_id] |= _slices(conn, compiled[build.build_id], build, mine)
    counting = _Counting(conn, compiled, builds, mine)
    (last,) = one_row(conn, "SELECT coalesce(max(repair_id), 0) FROM refold.repairs")
    for build in roots:
        if not build.loaded:
            start_over(conn, build)
        elif touched[build.build_id]:
            heal(conn, compiler, build, touched[build.build_id], proof=proof, proved=agreed[build.build_id])
    counting.correct(conn)
    for build in loaded:
        # Nobody heals what does not count yet, and it may hold the person.
        fold.undo(conn, compiled[build.build_id], build, mine.positions[0])
    failpoint("erasure_healed")
    letters = drop_letters(conn, builds, mine.positions)
    metrics = taken_from_repairs(conn, last, [build.build_id for build in builds])
    return Changed(slices, sorted(proved), metrics, letters)


def token_of(conn: psycopg.Connection, erasure: Erasure) -> str:
    """Return what stands in the place of the person: one an erasure, which is kept nowhere but in the events."""
    changed = conn.execute(
        """
        SELECT e.user_id, ARRAY(SELECT e.metadata ->> f FROM unnest(%s::text[]) AS f)
        FROM refold.events AS e WHERE e.position IN (
            SELECT max(x.position) FROM refold.erased_events AS x WHERE x.erasure_id = %s AND x.done GROUP BY x.mention)
        """,
        (erasure.fields, erasure.erasure_id),
    ).fetchall()
    known = [one for user_id, values in changed for one in (user_id, *values) if one and one.startswith(TOKEN)]
    return known[0] if known else TOKEN + secrets.token_hex(16)


def locked(conn: psycopg.Connection) -> list[Build]:
    """Lock all builds that are kept, upstream before downstream; return them."""
    found: dict[int, Build] = {}
    for root in find(conn, "b.state IN ('building', 'live') AND b.upstream_id IS NULL"):
        found |= {build.build_id: build for build in lock_downwards(conn, root) or []}
    return list(found.values())


def _slices(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, mine: Mine) -> set[int]:
    """Return the slices of a build to which the events belong that it has applied.

    An event for which the key fails, without its metadata say, belongs to none: healing makes it a dead letter.
    """
    event = compiled.statements.relations[0].slicing.event
    query = (
        f"SELECT DISTINCT {event} FROM {compiled.stream.table} WHERE {mine.condition} AND {compiled.stream.applied()}"
    )
    try:
        with conn.transaction():
            rows = conn.execute(query.encode(), parameters_of(conn, build)).fetchall()
    except Exception as error:
        if not caused_by_event(error):
            raise
        if len(mine.positions) == 1:
            return set()
        return set().union(*(_slices(conn, compiled, build, Mine([one])) for one in mine.positions))
    return {int(number) for (number,) in rows if number is not None}


def _unread(conn: psycopg.Connection, compiled: CompiledBuild, build: Build, gone: Mine) -> None:
    """Take the events that are about to go from those that a build has read."""
    read = (
        f"(SELECT position, 0 AS ordinal FROM refold.events WHERE {gone.condition} AND {compiled.stream.applied()})"
        " AS page"
    )
    change = (
        checksum_sql.read(read, gone=True)
        if compiled.statements.reads_by_slice
        else checksum_sql.counted(f"(SELECT -count(*) FROM {read})")
    )
    conn.execute(checksum_sql.move([change]).encode(), {**parameters_of(conn, build), "build": str(build.build_id)})


class _Counting:
    """The reads of readers that are only counted, which healing leaves to the next audit.

    Only rows of the changed events change in a stream. What is a dead letter by now has been subtracted already.
    """

    def __init__(
        self, conn: psycopg.Connection, compiled: Mapping[int, CompiledBuild], builds: Iterable[Build], mine: Mine
    ) -> None:
        self._mine = mine
        self._readers = [
            (compiled[build.build_id], parameters_of(conn, build))
            for build in builds
            if build.upstream_id is not None and build.loaded and not compiled[build.build_id].statements.reads_by_slice
        ]
        self._before = [self._rows(conn, *reader) for reader in self._readers]

    def correct(self, conn: psycopg.Connection) -> None:
        """Count the rows again, and record the difference."""
        for (compiled, parameters), before in zip(self._readers, self._before, strict=True):
            difference = self._rows(conn, compiled, parameters) - before
            if difference and by_id(conn, compiled.build_id).loaded:
                conn.execute(
                    checksum_sql.move([checksum_sql.counted(str(difference))]).encode(),
                    {"build": str(compiled.build_id)},
                )

    def _rows(self, conn: psycopg.Connection, compiled: CompiledBuild, parameters: Mapping[str, str]) -> int:
        stream = compiled.stream
        query = f"SELECT count(*) FROM {stream.table} WHERE {self._mine.condition} AND {stream.applied()}"
        return int(one_row(conn, query.encode(), parameters)[0])


def _forget_letters(conn: psycopg.Connection, builds: Iterable[Build], gone: Mine) -> None:
    """Delete the dead letters of events that are about to go."""
    conn.execute("SET LOCAL ROLE refold_owner")
    deleted = conn.execute(
        f"DELETE FROM refold.dead_letters WHERE {gone.condition} RETURNING build_id".encode()
    ).fetchall()
    conn.execute("SET LOCAL ROLE refold_worker")
    for build_id in {build_id for (build_id,) in deleted} & {build.build_id for build in builds}:
        dead_letters.recount(conn, build_id)


def _new_ids(conn: psycopg.Connection, mine: Mine, targets: Sequence[Target]) -> dict[str, str]:
    """Return new ids for the events whose ids hold the person, by the old ones."""
    renamed = [one.position for one in targets if one.renamed]
    rows = conn.execute(
        f"SELECT event_id FROM refold.events WHERE {mine.condition} AND position = ANY (%s)".encode(), (renamed,)
    ).fetchall()
    return erasures.new_ids(conn, [event_id for (event_id,) in rows])


def _change_log(conn: psycopg.Connection, erasure: Erasure, mine: Mine, token: str, ids: Mapping[str, str]) -> None:
    """Change or remove the events, and what the ledger says of them."""
    known = parameters_of_change(erasure, token, ids)
    conn.execute("SET LOCAL ROLE refold_owner")
    # The door by which lost events are restored: no other session sees the log without its guards.
    conn.execute("SET LOCAL refold.restoring = on")
    # By position: the ledger may know an event that the log has lost.
    conn.execute(f"UPDATE refold.event_ids SET digest = 0 WHERE {mine.condition}".encode())
    change_rows(conn, "refold.events", erasure.mode, known, mine.positions)
    rename(conn, ids)
    conn.execute("SET LOCAL refold.restoring = off")
    erasures.done(conn, erasure, mine.positions)
    conn.execute("SET LOCAL ROLE refold_worker")


def _reseal(
    conn: psycopg.Connection, before: Mapping[int, SliceChecksum], after: Mapping[int, SliceChecksum]
) -> set[int]:
    """Compute sealed checksums by subtraction, and prove them by hashing the slices; return the sealed slices.

    Of a slice that the border of purged segments cuts, the lower part is what the archive was proved to have.

    Raises:
        LogDamaged: a slice holds something else than was sealed, besides what was changed.
    """
    changed: set[int] = set()
    for low, high in runs(before):
        assert low is not None and high is not None
        kept = sealed(conn, low, high)
        standing = standing_events(conn, low << POSITION_BITS, (high + 1) << POSITION_BITS) if kept else {}
        for number, was in kept.items():
            old, new = before[number], after.get(number, SliceChecksum())
            now = standing.get(number, SliceChecksum())
            if not agree(was - old + new, now):
                raise LogDamaged([_damage(conn, number)], [number])
            conn.execute("SET LOCAL ROLE refold_owner")
            conn.execute(
                "UPDATE refold.sealed_slices SET events = %s, ids = %s, hash = %s, upto = %s::text::xid8"
                " WHERE slice = %s",
                (now.events, now.ids, now.hash, str(now.upto), number),
            )
            conn.execute("SET LOCAL ROLE refold_worker")
            changed.add(number)
    return changed


def _damage(conn: psycopg.Connection, number: int) -> Damage:
    at = max(number << POSITION_BITS, floor(conn))
    segment = next((one.name for one in segments(conn) if one.lower <= at < one.upper), "refold.events")
    return Damage(segment, "checksums", position=at, detail=f"slice {number} is not what was sealed")


def drop_letters(conn: psycopg.Connection, builds: Iterable[Build], positions: Sequence[int]) -> int:
    """Settle the dead letters of events that are changed: nobody can make them right, and no error says more of them.

    An event without its metadata may be one that a transform cannot process.
    """
    mine = Mine(positions)
    kept = [build.build_id for build in builds]
    dropped = conn.execute(
        f"""
        UPDATE refold.dead_letters AS d
        SET state = 'dropped', reason = %(why)s, ended_at = now(), ended_by = session_user
        WHERE {mine.condition} AND state = 'waiting' AND build_id = ANY (%(builds)s) RETURNING build_id
        """.encode(),
        {"why": WHY, "builds": kept},
    ).fetchall()
    conn.execute(
        f"UPDATE refold.dead_letters SET error = %s, traceback = NULL, event = NULL WHERE {mine.condition}".encode(),
        (WHY,),
    )
    for build_id in {build_id for (build_id,) in dropped}:
        dead_letters.moved(conn, build_id, waiting=-sum(1 for (one,) in dropped if one == build_id))
    return len(dropped)
