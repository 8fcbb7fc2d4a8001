"""Healing: recomputing the slices that differ, and the readers of the changed rows, in one transaction.

The build and all its readers are locked first, upstream before downstream. A reader is healed as of its own cursor: it
will read later events by itself, and must not get them twice. Whole slices are compared under the lock, so that their
checksums may be computed from the rows afterwards. Only the keys that differ are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import psycopg
from psycopg.sql import SQL

from refold.engine.isolate.applied import without_culprits
from refold.engine.reconcile.audit import parameters_of, parts
from refold.engine.reconcile.compare import FOUND, compare, differences, hashes, record, slices
from refold.engine.reconcile.log_proof import LogProof
from refold.engine.reconcile.purged import cut, damaged
from refold.engine.reconcile.recomputed import recompute
from refold.engine.reconcile.result import ReconcileReport
from refold.engine.reconcile.scope import Scope, within
from refold.errors import BuildError
from refold.model.sql_text import EVERYTHING, ident
from refold.model.stream.cursor import Key
from refold.model.stream.slices import Range, runs
from refold.model.upkeep.statements import Relation, within_keys
from refold.model.upkeep.transform import EXPECTED
from refold.postgres.session import plan_freely
from refold.postgres.sqlstate import caused_by_event
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import Build, by_id, changed, lock, readers_of
from refold.store.builds.checksums import Disagreement, correct, disagreements
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.dead_letters import moved
from refold.store.builds.first_load import start_over
from refold.store.outbox import send

Touched = dict[int, set[int]]
"""The slices to compute again, by the id of each direct reader."""


def heal(
    conn: psycopg.Connection,
    compiler: Compiler,
    build: Build,
    suspects: Set[int],
    *,
    readers: bool = True,
    unread: Set[int] = frozenset(),
    proof: LogProof | None = None,
    proved: Set[int] = frozenset(),
) -> ReconcileReport:
    """Heal what an audit found, record the repairs, and return them.

    Args:
        conn: acts as refold_worker; a transaction is opened if there is none.
        compiler: makes the SQL of the builds.
        build: the build that was audited.
        suspects: its slices that differ.
        readers: whether to heal its readers too; False if the caller audits each of them afterwards.
        unread: slices of its stream from which it has read other rows than its cursor says.
        proof: the parts of the log that were verified in this run.
        proved: slices of the build whose rows of purged events are known to be right.

    Raises:
        BuildError: the build was replaced, or its first load has started again since the audit.
        LogDamaged: the repair contradicts checksums, and the log behind them is damaged; nothing was healed.
    """
    with conn.transaction():
        plan_freely(conn)
        locked = lock_downwards(conn, build, readers=readers)
        if locked is None:
            raise BuildError(f"{build.table_name} was replaced during the audit")
        if not locked[0].loaded:
            raise BuildError(f"{build.table_name} is being loaded again since the audit")
        return Healing(conn, compiler, locked, proof or LogProof(), proved).run(suspects, unread)


class Healing:
    """Heals a build and its readers in the caller's transaction.

    Args:
        conn: the transaction.
        compiler: makes the SQL of the builds.
        locked: the build, then all readers that may have to be healed with it; the transaction holds their locks.
        proof: the parts of the log that were verified in this run.
        proved: slices of the build whose rows of purged events are known to be right. Of others that reach below its
            floor, no checksum is corrected: the log cannot tell these rows.
    """

    def __init__(
        self,
        conn: psycopg.Connection,
        compiler: Compiler,
        locked: Sequence[Build],
        proof: LogProof,
        proved: Set[int] = frozenset(),
    ) -> None:
        self._conn = conn
        self._compiler = compiler
        self._locked = locked
        self._proof = proof
        self._proved = proved
        self._result = ReconcileReport()

    def run(self, suspects: Set[int], unread: Set[int]) -> ReconcileReport:
        """Heal some slices of the build, and apply missed rows of its stream; the arguments are those of `heal`."""
        build = self._locked[0]
        compiled = self._compiler.of(self._conn, build)
        missed, behind = _missed(self._conn, compiled, build, unread)
        lost = cut(compiled, build, missed) if compiled.statements.reads_by_slice else []
        if lost:
            self._result.add_beyond(compiled, build.projection, lost)
            missed = [one for one in missed if one not in lost]
        if missed:
            self._proof.read(self._conn, compiled, (one.slice for one in missed))
        self._slices(build, suspects | behind, proves=True)
        correct(self._conn, build.build_id, missed)
        if not self._result.drift:
            self._result.add_checksums(compiled, build.projection, missed)
        return self._result

    def _slices(self, build: Build, numbers: Set[int], *, proves: bool) -> None:
        """Recompute some slices of a build as of its cursor, and the slices of its readers that depend on changed rows.

        Args:
            build: the build.
            numbers: its slices.
            proves: whether to verify the log before checksums change. False if rows of the stream were healed, because
                then the build and its checksums must change.
        """
        compiled = self._compiler.of(self._conn, build)
        lost = self._beyond(damaged(self._conn, compiled, build, numbers))
        self._result.add_beyond(compiled, build.projection, lost)
        changed: list[_Healed] = []
        for part in parts(compiled, set(numbers) - {one.slice for one in lost}):

            def work(parameters: Mapping[str, str], part: Sequence[Range] = part) -> _Healed:
                return self._part(compiled, build, part, parameters)

            healed = without_culprits(self._conn, compiled, build, work, _evaluation(self._conn, compiled, part))
            self._result.add(healed.report)
            # Under the lock the rows are correct now. A checksum that still differs is out of date, or was wrong if the
            # rows did not change.
            wrong = disagreements(self._conn, build.build_id, compiled.statements.relations, part)
            if compiled.plan.event_grain and (lost := self._beyond(cut(compiled, build, wrong))):
                self._result.add_beyond(compiled, build.projection, lost)
                wrong = [one for one in wrong if one not in lost]
            if wrong and proves:
                self._proof.rows(self._conn, compiled, part)
            if proves and not healed.report.drift:
                self._result.add_checksums(compiled, build.projection, wrong)
            correct(self._conn, build.build_id, wrong)
            if healed.report.drift:
                changed.append(healed)
        # Once, when all rows are right: many parts of a stream may lead to the same slice of a reader.
        if changed:
            self._readers(build, changed)

    def _beyond(self, found: Sequence[Disagreement]) -> list[Disagreement]:
        """Return those of some slices with rows of purged events of which nobody knows whether these are right."""
        return [one for one in found if one.slice not in self._proved]

    def _part(
        self, compiled: CompiledBuild, build: Build, part: Sequence[Range], parameters: Mapping[str, str]
    ) -> _Healed:
        """Replace the rows that differ in some slices, and return the repair."""
        conn = self._conn
        healed = _Healed(ReconcileReport(), {}, {}, set())
        for relation in compiled.statements.relations:
            scope = expected_in(conn, compiled, within(relation, part), parameters)
            if not compare(conn, relation, scope, parameters):
                continue
            keys = {**parameters, "keys": "{" + ",".join(map(str, hashes(conn))) + "}"}
            record(conn, build, relation)
            if build.sinks and relation is compiled.statements.relations[0]:
                for sink_id in build.sinks:
                    send(conn, sink_id, relation.key, SQL(f"SELECT slice, key FROM {FOUND}"))
                changed(conn, build)
            healed.report.add(differences(conn, build, relation, healed=True))
            if compiled.plan.event_grain:
                # In any slice: a row whose position was changed blocks the missing row here.
                own = f"event_id IN (SELECT row ->> 'event_id' FROM {FOUND})"
                elsewhere = conn.execute(
                    f"SELECT DISTINCT {relation.slicing.row} FROM {relation.table} WHERE {own}".encode()
                )
                healed.positions = slices(conn).union(*elsewhere.fetchall())
                self._try_again(build)
            else:
                own = f"({scope.table}) AND {within_keys(relation.hash)}"
            healed.before = healed.before or self._reader_slices(build, relation, own, keys)
            conn.execute(f"DELETE FROM {relation.table} WHERE {own}".encode(), keys)
            if compiled.transform is None:
                conn.execute(relation.insert(scope.stream, scope.table).encode(), keys)
            else:
                columns = ", ".join(map(ident, relation.columns))
                conn.execute(
                    f"INSERT INTO {relation.table} ({columns}) SELECT {columns} FROM {EXPECTED} WHERE {own}".encode()
                )
            healed.after = healed.after or self._reader_slices(build, relation, own, keys)
        return healed

    def _readers_of(self, build: Build) -> list[Build]:
        return [reader for reader in self._locked if reader.upstream_id == build.build_id]

    def _try_again(self, build: Build) -> None:
        """Release the dead letters of direct readers for rows that are healed: the wrong row may have caused them.

        The healing of the reader, which follows, makes events that still fail dead letters again.
        """
        for reader in self._readers_of(build):
            released = self._conn.execute(
                "UPDATE refold.dead_letters SET state = 'released', ended_at = now(), ended_by = session_user"
                f" WHERE build_id = %s AND state = 'waiting' AND event_id IN (SELECT row ->> 'event_id' FROM {FOUND})"
                " RETURNING txid::text::bigint, position, ordinal".encode(),
                (reader.build_id,),
            ).fetchall()
            if not released:
                continue
            moved(self._conn, reader.build_id, left_out=-len(released), waiting=-len(released))
            if not reader.loaded:
                continue
            for key in released:
                reads.remember(self._conn, self._compiler.of(self._conn, reader), Key(*key))

    def _reader_slices(
        self, build: Build, relation: Relation, condition: str, parameters: Mapping[str, str]
    ) -> Touched:
        """Return, for each direct reader, the slices to which some rows of a stream belong."""
        found: Touched = {}
        for reader in self._readers_of(build):
            if not reader.loaded:
                continue
            slice_ = self._compiler.of(self._conn, reader).statements.relations[0].slicing.event
            known = {**parameters, **parameters_of(self._conn, reader)}
            rows = _of_each(self._conn, relation, slice_, condition, known)
            # None: a row that the reader excludes or has not read yet.
            found[reader.build_id] = {int(number) for (number,) in rows if number is not None}
        return found

    def _readers(self, build: Build, healed: Sequence[_Healed]) -> None:
        """Recompute in each reader the slices of the rows, as they were before and as they are now."""
        for reader in self._readers_of(build):
            if not reader.loaded:
                start_over(self._conn, reader)
                continue
            compiled = self._compiler.of(self._conn, reader)
            # If rows were moved or missing when the reader read them, it has read other rows than there are now. (If
            # reads are only counted, these rows are unknown: the next audit evaluates all of the reader.)
            positions = set().union(*(one.positions for one in healed)) if compiled.statements.reads_by_slice else set()
            missed, behind = _missed(self._conn, compiled, reader, positions)
            touched = behind.union(*(one.touched(reader) for one in healed))
            if touched:
                self._slices(by_id(self._conn, reader.build_id), touched, proves=False)
            correct(self._conn, reader.build_id, missed)


class HealingFromArchive(Healing):
    """Heals rows of purged events in a stream, and its readers, in the caller's transaction."""

    def purged(
        self, over: CompiledBuild, part: Sequence[Range], whole: Callable[[int], bool], parameters: Mapping[str, str]
    ) -> ReconcileReport:
        """Heal the rows that differ from thawed events, and return the repair.

        Args:
            over: the build's SQL over the thawed events; its relation is bounded to their positions.
            part: the slices of these positions.
            whole: returns whether all positions of a slice are among these; a border of segments may cut others.
            parameters: the cursor of the build.
        """
        build = self._locked[0]
        compiled = self._compiler.of(self._conn, build)
        healed = self._part(over, build, part, parameters)
        self._result.add(healed.report)
        wrong = disagreements(self._conn, build.build_id, compiled.statements.relations, part)
        wrong = [one for one in wrong if whole(one.slice)]
        if not healed.report.drift:
            self._result.add_checksums(compiled, build.projection, wrong)
        correct(self._conn, build.build_id, wrong)
        if healed.report.drift:
            self._readers(build, [healed])
        return self._result


@dataclass(slots=True)
class _Healed:
    """The outcome of healing a part of a build.

    Args:
        report: the rows that were healed.
        before: the slices of direct readers that depend on these rows as they were before.
        after: the slices of direct readers that depend on these rows as they are now.
        positions: for an event-grain build, the slices of positions of these rows.
    """

    report: ReconcileReport
    before: Touched
    after: Touched
    positions: set[int]

    def touched(self, reader: Build) -> set[int]:
        """Return the slices of a direct reader that depend on these rows, as they were before or as they are now."""
        return self.before.get(reader.build_id, set()) | self.after.get(reader.build_id, set())


def lock_downwards(conn: psycopg.Connection, build: Build, *, readers: bool = True) -> list[Build] | None:
    """Lock a build and all its readers, at any depth, and return them; None if the build is no longer kept.

    Readers in their first load are locked too: some of their steps may have read rows that are about to be healed. The
    locks also keep a deploy from creating another reader, which would load the wrong rows and not be healed.
    """
    locked: list[Build] = []
    level = [build.build_id]
    while level:
        for build_id in sorted(level):
            one = lock(conn, build_id, wait=True, readers=True)
            if one is not None:
                locked.append(one)
            elif build_id == build.build_id:
                return None
        below = readers_of(conn, *level) if readers else []
        level = [reader.build_id for reader in below]
    return locked


def _missed(
    conn: psycopg.Connection, compiled: CompiledBuild, build: Build, positions: Set[int]
) -> tuple[list[Disagreement], set[int]]:
    """Return the slices of a stream that a build has read wrongly, and the build's own slices of their rows."""
    if not positions:
        return [], set()
    missed = reads.disagreements(conn, compiled, build, parameters_of(conn, build), runs(positions))
    if not missed:
        return [], set()
    ranges = runs(one.slice for one in missed)

    def behind(parameters: Mapping[str, str]) -> set[int]:
        return reads.slices_behind(conn, compiled, parameters, ranges)

    return missed, without_culprits(conn, compiled, build, behind, behind)


def leave_out_culprits(conn: psycopg.Connection, compiler: Compiler, build: Build, ranges: Sequence[Range]) -> None:
    """Make the events that fail in some slices of a build dead letters, so that these slices can be audited.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of the builds.
        build: a build that has missed events of its stream.
        ranges: the slices.

    Raises:
        BuildError: the build was replaced, or too many events fail.
    """
    with conn.transaction():
        plan_freely(conn)
        locked = lock(conn, build.build_id, wait=True)
        if locked is None or not locked.loaded:
            raise BuildError(f"{build.table_name} was replaced during the audit")
        compiled = compiler.of(conn, locked)
        evaluate = _evaluation(conn, compiled, ranges)
        without_culprits(conn, compiled, locked, evaluate, evaluate)


def _evaluation(
    conn: psycopg.Connection, compiled: CompiledBuild, part: Sequence[Range]
) -> Callable[[Mapping[str, str]], None]:
    """Return a function that evaluates the rows which some slices of a build must hold."""

    def evaluate(parameters: Mapping[str, str]) -> None:
        for relation in compiled.statements.relations:
            compare(conn, relation, expected_in(conn, compiled, within(relation, part), parameters), parameters)

    return evaluate


def expected_in(
    conn: psycopg.Connection, compiled: CompiledBuild, scope: Scope, parameters: Mapping[str, str]
) -> Scope:
    """Return the scope to compare in; for a transform, first compute the rows that it must hold."""
    if compiled.transform is None:
        return scope
    recompute(conn, compiled, parameters, scope.stream)
    return Scope(EVERYTHING, scope.table)


def _of_each(
    conn: psycopg.Connection, relation: Relation, slice_: str, condition: str, parameters: Mapping[str, str]
) -> list[tuple[int | None]]:
    """Return the slices of some rows of a stream, without rows for which the key of a reader fails.

    A row may have been changed by hand to a value that the reader cannot process. The reader holds nothing of such a
    row, and the error must not prevent its healing.
    """
    query = f"SELECT DISTINCT {slice_} FROM {relation.table} WHERE ({condition})"
    try:
        with conn.transaction():
            return conn.execute(query.encode(), parameters).fetchall()
    except Exception as error:
        if not caused_by_event(error):
            raise
    found: list[tuple[int | None]] = []
    ids = conn.execute(f"SELECT event_id FROM {relation.table} WHERE {condition}".encode(), parameters)
    for (event_id,) in ids.fetchall():
        try:
            with conn.transaction():
                found += conn.execute(
                    f"{query} AND event_id = %(event_id)s".encode(), {**parameters, "event_id": event_id}
                ).fetchall()
        except Exception as error:
            if not caused_by_event(error):
                raise
    return found
