"""The audit of what stands for purged events, against the archive: rows of streams, and bases of merged builds.

Rows of a stream are compared with their query over one range of thawed events after another, and healed in the same way
as those that the log can tell. The base of a merged build is compared as a whole: a table beside it is loaded from the
archive, a file in each transaction, and then both are compared under the build's lock. What depends on a base that was
healed, the audit of the build heals, which comes after this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

import psycopg
from psycopg import sql

from refold.engine.archive.sources import PORTION, Source, Sources, purged
from refold.engine.reconcile.audit import audit, parameters_of
from refold.engine.reconcile.compare import compare, differences, record
from refold.engine.reconcile.heal import HealingFromArchive, expected_in, lock_downwards
from refold.engine.reconcile.log_proof import LogProof
from refold.engine.reconcile.nameless import drift_is_expected
from refold.engine.reconcile.reconcile import Reconciler, outcome
from refold.engine.reconcile.result import ReconcileReport
from refold.engine.reconcile.scope import WHOLE, within
from refold.errors import BuildError
from refold.model.sql_text import ident
from refold.model.stream.cursor import EMPTY, Read
from refold.model.stream.parameters import read_parameters
from refold.model.stream.slices import POSITION_BITS, Range, whole
from refold.model.upkeep.checksums import actual
from refold.model.upkeep.statements import Base, Relation
from refold.postgres.failpoints import failpoint
from refold.postgres.replica_identity import IDENTITY
from refold.postgres.session import plan_freely
from refold.store import bases, incidents
from refold.store.builds.build import EVENT_GRAIN, Build, based, lock, unfinished
from refold.store.builds.checksums import Side, correct, disagreements, keep
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.dead_letters import excluded_event_ids
from refold.store.builds.first_load import start_over, tables_of
from refold.store.builds.graph import by_depth

STEP = 1 << 21
"""Positions that are loaded together beside a base."""


def reconcile_archived(
    conn: psycopg.Connection,
    compiler: Compiler,
    names: Sequence[str] = (),
    *,
    dry_run: bool = False,
    by: str,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> ReconcileReport:
    """Audit what stands for purged events in live builds on the log, heal the differences, and return a report.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds, with the code of transforms.
        names: the projections; empty for all. Others are not concerned: they read no purged events.
        dry_run: report the differences, and change nothing.
        by: name of the program, for incidents.
        progress: called with the projection, the positions that were compared, and all.

    Raises:
        Unreadable: the archive does not have purged events as it was proved to.
        BuildError: a build changed during its audit.
    """
    report = ReconcileReport()
    with closing(Sources()) as sources:
        for build in based(conn):
            if names and build.projection not in names:
                continue
            purged(conn)
            one = _Audit(conn, compiler, sources, build, dry_run, by, progress)
            found = one.stream() if build.upkeep in EVENT_GRAIN else one.base()
            report.add(found)
            report.audited.append(build.projection)
    return report


def follow_archive(conn: psycopg.Connection, compiler: Compiler, *, by: str) -> None:
    """Heal what stands for purged events of which the archive has other files now.

    What depends on that in live builds, an audit heals, which must come after this.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of builds, with the code of transforms.
        by: name of the program, for incidents.

    Raises:
        Unreadable: the archive does not have purged events as it was proved to.
        BuildError: a build cannot be healed.
    """
    reconcile_archived(conn, compiler, by=by)
    _follow_waiting(conn, compiler, by)
    # No audit of live builds reaches those that wait.
    for build in by_depth(conn, unfinished(conn)):
        if build.loaded:
            Reconciler(conn, compiler, "deep", None, False, by).one(build)


def _follow_waiting(conn: psycopg.Connection, compiler: Compiler, by: str) -> None:
    """Heal what stands for purged events in builds that wait to go live; others load again."""
    with closing(Sources()) as sources:
        for build in based(conn, "building"):
            if not build.loaded:
                with conn.transaction():
                    locked = lock(conn, build.build_id, wait=True)
                    if locked is not None and not locked.loaded:
                        start_over(conn, locked, purged=True)
                        continue
            one = _Audit(conn, compiler, sources, build, False, by, lambda name, done, total: None)
            if build.upkeep in EVENT_GRAIN:
                one.stream()
            else:
                one.base()


class _Audit:
    def __init__(
        self,
        conn: psycopg.Connection,
        compiler: Compiler,
        sources: Sources,
        build: Build,
        dry_run: bool,
        by: str,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.conn, self.compiler, self.sources, self.build, self.by = conn, compiler, sources, build, by
        self.heals = not dry_run
        self.progress = progress
        self.report = ReconcileReport()

    def stream(self) -> ReconcileReport:
        """Compare the rows of a stream, a range of positions in each transaction."""
        at, floor = 1, self.build.floor
        cut: set[int] = set()
        while at < floor:
            with self.conn.transaction():
                plan_freely(self.conn)
                with self.sources.thawing(self.conn, at, floor, most=PORTION) as source:
                    found = self._compared(source)
                    upper = source.upper
            if found.drift or found.checksums:
                found = self._healed(at) if self.heals else found
            self.report.add(found)
            at = upper
            cut |= {at >> POSITION_BITS} if at % (1 << POSITION_BITS) else set()
            self.progress(self.build.projection, at, floor)
        for number in sorted(cut):
            self._cut(number)
        self._resolve()
        return self.report

    def _cut(self, number: int) -> None:
        """Compare the checksum of a slice that a border of segments cuts, and whose purged rows were compared."""
        part = [(number, number)]
        compiled = self.compiler.of(self.conn, self.build)
        wrong = disagreements(self.conn, self.build.build_id, compiled.statements.relations, part)
        if wrong and self.heals:
            self.report.add(self._healed_whole(number))
        elif wrong and not self.report.drift and not audit(self.conn, compiled, keep=True, ranges=part).report.drift:
            # If rows differ, these are what is wrong.
            self.report.add_checksums(compiled, self.build.projection, wrong)

    def _healed_whole(self, number: int) -> ReconcileReport:
        """Compare and heal all rows of a slice under the lock of the build and its readers, then its checksum."""
        with self.conn.transaction():
            plan_freely(self.conn)
            locked = self._locked()
            healing = HealingFromArchive(self.conn, self.compiler, locked, LogProof(), {number})
            parameters = parameters_of(self.conn, locked[0])
            at, behind = max(number << POSITION_BITS, 1), min((number + 1) << POSITION_BITS, locked[0].floor)
            while at < behind:
                with self.sources.thawing(self.conn, at, behind, most=PORTION) as source:
                    healing.purged(*self._over(source), lambda number: False, parameters)
                    at = source.upper
            # What the log tells of it, and the checksum.
            found = healing.run({number}, frozenset())
            self._detect(found)
        return found

    def _locked(self) -> list[Build]:
        """Lock the build and its readers, and return them."""
        locked = lock_downwards(self.conn, self.build)
        if locked is None or not locked[0].loaded:
            raise BuildError(f"{self.build.table_name} was replaced during the audit")
        return locked

    def _compared(self, source: Source) -> ReconcileReport:
        """Compare without the build's lock: nothing but a repair changes these rows."""
        over, part = self._over(source)
        parameters = parameters_of(self.conn, self.build)
        relation = over.statements.relations[0]
        scope = expected_in(self.conn, over, within(relation, part), parameters)
        found = ReconcileReport()
        if compare(self.conn, relation, scope, parameters):
            found.add(differences(self.conn, self.build, relation, healed=False))
        compiled = self.compiler.of(self.conn, self.build)
        wrong = disagreements(self.conn, self.build.build_id, compiled.statements.relations, part)
        wrong = [one for one in wrong if whole(one.slice, source.lower, source.upper)]
        found.add_checksums(compiled, self.build.projection, wrong)
        return found

    def _healed(self, at: int) -> ReconcileReport:
        """Compare and heal a range under the lock of the build and its readers."""
        with self.conn.transaction():
            plan_freely(self.conn)
            locked = self._locked()
            with self.sources.thawing(self.conn, at, self.build.floor, most=PORTION) as source:
                over, part = self._over(source)
                healing = HealingFromArchive(self.conn, self.compiler, locked, LogProof())
                parameters = parameters_of(self.conn, locked[0])
                found = healing.purged(over, part, lambda number: whole(number, source.lower, source.upper), parameters)
            self._detect(found)
        return found

    def _over(self, source: Source) -> tuple[CompiledBuild, Sequence[Range]]:
        over = self.compiler.over(self.conn, replace(self.build, floor=1), source.relation)
        bounded = f"position >= {source.lower} AND position < {source.upper}"
        relation = replace(over.statements.relations[0], told=bounded)
        over = replace(over, statements=replace(over.statements, relations=(relation,)))
        return over, [(source.lower >> POSITION_BITS, (source.upper - 1) >> POSITION_BITS)]

    def base(self) -> ReconcileReport:
        """Compare the base of a merged build with tables that are loaded from the archive."""
        beside = replace(self.build, floor=1, table_name=f"archived__{self.build.build_id}", sinks=[])
        dead = excluded_event_ids(self.conn, self.build)
        self._drop(beside)
        try:
            self._load(beside, dead)
            with self.conn.transaction():
                plan_freely(self.conn)
                build = lock(self.conn, self.build.build_id, wait=True)
                if build is None or not build.loaded or build.floor != self.build.floor:
                    raise BuildError(f"{self.build.table_name} was replaced, or more was purged, during the audit")
                if build.retained_from != self.build.retained_from:
                    raise BuildError(f"{self.build.table_name} keeps fewer slices since the audit began")
                if excluded_event_ids(self.conn, build) != dead:
                    raise BuildError(
                        f"dead letters of {self.build.projection} changed during the audit", remedy="Run it again."
                    )
                self._compare_base(build, beside)
        finally:
            if not self.conn.closed:
                self._drop(beside)
        self._resolve()
        return self.report

    def _load(self, beside: Build, dead: Sequence[str]) -> None:
        made = self.compiler.over(self.conn, beside, "refold.events").statements
        with self.conn.transaction():
            for statement in (*made.create, *made.keys):
                self.conn.execute(statement.encode(), {})
            for table in tables_of(self.conn, beside.table_name):
                # They are updated, and somebody may publish all tables.
                self.conn.execute(f"ALTER TABLE refold_builds.{ident(table)} {IDENTITY}".encode())
        at, floor = 1, self.build.floor
        while at < floor:
            with self.conn.transaction():
                plan_freely(self.conn)
                with self.sources.thawing(self.conn, at, floor, most=STEP) as source:
                    over = self.compiler.over(self.conn, beside, source.relation).statements
                    parameters = read_parameters(Read(EMPTY, self.build.cursor.done, None, None), 0, dead)
                    # The client binds the parameters: CREATE TABLE AS takes none.
                    with psycopg.ClientCursor(self.conn) as cursor:
                        for statement in over.load if at == 1 else over.load_next:
                            cursor.execute(statement.encode(), parameters)
                    at = source.upper
            failpoint("audit_archived")
            self.progress(self.build.projection, at, floor)

    def _compare_base(self, build: Build, beside: Build) -> None:
        compiled = self.compiler.of(self.conn, build)
        base = compiled.statements.base
        assert base is not None, build.table_name
        others = self.compiler.over(self.conn, beside, "refold.events").statements.relations
        for relation, other, alone, kept in zip(
            compiled.statements.relations, others, base.alone, base.tables, strict=True
        ):
            name = kept.table.split(".", 1)[1]
            self.conn.execute(f"CREATE TEMPORARY VIEW {name} AS\n{alone}".encode())
            compared = _against(relation, f"pg_temp.{name}", other.table)
            if compare(self.conn, compared, WHOLE, {}):
                if self.heals:
                    record(self.conn, build, compared)
                self.report.add(differences(self.conn, build, compared, healed=self.heals))
            self.conn.execute(f"DROP VIEW pg_temp.{name}".encode())
        first = len(compiled.statements.relations)
        wrong = disagreements(self.conn, build.build_id, base.tables, first=first)
        if self.report.drift and self.heals:
            self._replace(build, beside, base, first)
            self._detect(self.report)
        elif wrong and not self.report.drift:
            self.report.add_checksums(compiled, build.projection, wrong)
            if self.heals:
                correct(self.conn, build.build_id, wrong)

    def _replace(self, build: Build, beside: Build, base: Base, first: int) -> None:
        """Fill the base from what the archive makes; what was folded ahead of the next purge is folded again."""
        for kept in base.tables:
            self.conn.execute(f"DELETE FROM {kept.table}".encode())
        for statement in base.taken(beside.table_name):
            self.conn.execute(statement.encode())
        bases.aim(self.conn, build.build_id, build.floor, build.floor)
        for at, kept in enumerate(base.tables, start=first):
            keep(self.conn, build.build_id, Side(at, actual(kept)), {})

    def _drop(self, beside: Build) -> None:
        for table in tables_of(self.conn, beside.table_name):
            self.conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("refold_builds", table)))

    def _detect(self, found: ReconcileReport) -> None:
        if found.drift and not drift_is_expected():
            evidence = {"depth": "deep", "archive": True, **outcome(found)}
            incidents.detect(self.conn, "drift", self.build.projection, by=self.by, evidence=evidence)

    def _resolve(self) -> None:
        of_file = [
            one
            for one in incidents.open_incidents(self.conn, "drift", subject=self.build.projection)
            if one.evidence.get("file")
        ]
        if self.heals and (self.report.drift or of_file):
            incidents.resolve(self.conn, "drift", self.build.projection, by=self.by, outcome=outcome(self.report))


def _against(relation: Relation, table: str, other: str) -> Relation:
    """Return a relation whose rows must be those of another table."""
    columns = ", ".join(sql.Identifier(name).as_string(None) for name in relation.columns)
    return replace(relation, table=table, expected=lambda scope, table_scope: f"SELECT {columns} FROM {other}")
