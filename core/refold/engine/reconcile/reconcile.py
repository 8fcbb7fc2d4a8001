"""`refold reconcile`: auditing builds and their views in topological order, and healing the differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import psycopg

from refold import tracing
from refold.engine.reconcile import deep
from refold.engine.reconcile.audit import as_kept, audit, parameters_of, parts, quick, record_quick, snapshot
from refold.engine.reconcile.heal import heal, leave_out_culprits
from refold.engine.reconcile.log_proof import LogProof
from refold.engine.reconcile.nameless import drift_is_expected, incidents_are_nameless
from refold.engine.reconcile.portions import Portion, next_portion
from refold.engine.reconcile.purged import BeyondLog
from refold.engine.reconcile.result import ReconcileReport
from refold.engine.reconcile.shown import audit_view
from refold.errors import BuildError
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.stream.slices import runs
from refold.model.upkeep.checksums import READ
from refold.postgres.retry import after_deadlocks
from refold.postgres.rows import one_row
from refold.postgres.sqlstate import caused_by_event, transient
from refold.store import incidents
from refold.store.builds import proofs
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import Build, by_id, live_builds, lock
from refold.store.builds.checksums import Disagreement, correct
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.builds.dead_letters import described
from refold.store.builds.graph import by_depth
from refold.store.builds.lookup import known
from refold.store.log.damage import leave, refuse_known
from refold.store.log.integrity import LogDamaged

Depth = Literal["quick", "slice", "deep"]

COMMAND = "refold reconcile"
KEYS = 20
"""Most keys and slices that an incident names."""
_DEEP = 'evidence @> \'{"depth": "deep"}\''
"""Condition on an incident: a deep audit detected it."""


def reconcile(
    conn: psycopg.Connection,
    projections: Path | Compiler | None,
    names: Sequence[str] = (),
    *,
    depth: Depth = "deep",
    since: datetime | None = None,
    dry_run: bool = False,
    by: str = COMMAND,
    progress: Callable[[str, int], None] = lambda name, found: None,
    in_portions: bool = False,
) -> ReconcileReport:
    """Audit live projections as of their cursors, heal the differences, and return a report.

    A stream is audited before its readers. A correct reader of a wrong stream would look like drift, and "healing" it
    would spread the damage.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        projections: the folder of transforms, whose functions compute their rows again.
        names: the projections to audit, together with the streams that they read; empty for all.
        depth: `quick` compares the rows with the kept checksums, and heals nothing; `slice` evaluates the slices that
            differ from their checksums again, and heals them; `deep` evaluates all slices again, in steps, and
            continues an interrupted audit.
        since: audit only keys of events since then; always deep.
        dry_run: report the differences, and change nothing.
        by: name of the program, for the incidents.
        progress: called after each projection with its name and the number of keys that differed.
        in_portions: audit only the next portion of a table that is too large for one statement of this session.

    Raises:
        BuildError: a name is not live.
    """
    compiler = projections if isinstance(projections, Compiler) else Compiler(projections)
    live = {build.projection: build for build in live_builds(conn)}
    chosen = [known(name, live) for name in names] if names else list(live.values())
    task = Reconciler(
        conn, compiler, depth, since, dry_run or depth == "quick", by, in_portions=in_portions, proves=not dry_run
    )
    result = task.result
    unsure: dict[int | None, str] = {}
    for build in by_depth(conn, _with_streams(conn, chosen)):
        before = result.drift
        try:
            task.shown = task.view(build)
            if build.upstream_id in unsure:
                raise BuildError(unsure[build.upstream_id])
            for attempt in after_deadlocks():
                with attempt, task.audit_span(build) as span:
                    task.one(build)
                    span.keep |= result.drift > before
        except Exception as error:
            # A build whose query or function fails, that is locked, or that exceeds the time limit of a duty, does not
            # stop the audit of the others.
            alone = isinstance(error, psycopg.Error) and not conn.closed
            if not (isinstance(error, BuildError) or caused_by_event(error) or alone):
                raise
            if not isinstance(error, BuildError):
                result.failed.append(build.projection)
            result.skipped.append((build.projection, str(error) if isinstance(error, BuildError) else described(error)))
            unsure[build.build_id] = f"it reads {build.projection}, which was not audited"
            continue
        if dry_run and depth != "quick" and result.drift > before:
            unsure[build.build_id] = f"it reads {build.projection}, which has drifted and must be healed first"
        result.audited.append(build.projection)
        progress(build.projection, result.drift - before)
    return result


def _with_streams(conn: psycopg.Connection, builds: Sequence[Build]) -> list[Build]:
    """Return some builds with all their streams."""
    found = {build.build_id: build for build in builds}
    for build in builds:
        found |= {stream.build_id: stream for stream in streams_of(conn, build)}
    return list(found.values())


def streams_of(conn: psycopg.Connection, build: Build) -> list[Build]:
    """Return the builds between the log and a build, from the log down."""
    above: list[Build] = []
    upstream_id = build.upstream_id
    while upstream_id is not None:
        above.insert(0, by_id(conn, upstream_id))
        upstream_id = above[0].upstream_id
    return above


class Detected(NamedTuple):
    """An open incident for drift.

    Args:
        incident_id: number of the incident.
        new: whether it was opened a moment ago.
    """

    incident_id: int
    new: bool


class Reconciler:
    """A run over builds; the arguments are those of `reconcile`.

    `proves`: whether quick audits leave proofs. Finished rounds of the deep audit always do.

    `shown`: whether the view of the build that is audited shows its rows: else a quick audit proves nothing.
    """

    def __init__(
        self,
        conn: psycopg.Connection,
        compiler: Compiler,
        depth: Depth,
        since: datetime | None,
        only_looks: bool,
        by: str,
        *,
        in_portions: bool = False,
        proves: bool = False,
    ) -> None:
        self.conn = conn
        self.compiler = compiler
        self.depth = depth
        self.since = since
        self.heals = not only_looks
        self.by = by
        self.in_portions = in_portions
        self.proves = proves
        self.shown = True
        self.result = ReconcileReport()
        self.damaged: set[int] = set()
        self.proof = LogProof()

    def audit_span(self, build: Build) -> AbstractContextManager[tracing.Work]:
        """Return the span of an audit: one of a duty is kept only if it finds something, fails, or is slow."""
        return tracing.work(
            "audit", build.projection, keep=self.by == COMMAND, depth=self.depth, build=build.build_id, by=self.by
        )

    def view(self, build: Build) -> bool:
        """Audit the view of a live build, and recreate it if it is missing or differs; return whether it is right."""
        try:
            found = audit_view(self.conn, self.compiler, build, heals=self.heals, by=self.by, duty=self.in_portions)
        except psycopg.Error as error:
            # Audit the rows anyway: the session may only lack the privilege for temporary views.
            if transient(error) or self.conn.closed:
                raise
            self.result.skipped.append((f"the view of {build.projection}", described(error)))
            return False
        self.result.hidden += [] if found is None else [found]
        return found is None or found.healed

    def one(self, build: Build) -> None:
        """Audit a build, and heal it."""
        # A promote may have switched it to another stream while others were audited.
        build = by_id(self.conn, build.build_id)
        if not build.loaded:
            # The cursor does not cover the rows that a step of the load has written, and healing would delete them.
            raise BuildError(f"{build.table_name} is being loaded")
        compiled = self.compiler.of(self.conn, build)
        if self.since is not None:
            self._since(build, compiled, self.since)
        elif self.depth == "deep":
            self._deep(build, compiled)
        else:
            self._quick(build, compiled)

    def _quick(self, build: Build, compiled: CompiledBuild) -> None:
        began_at = self._now()
        proves = self.proves and self.shown
        if self.in_portions:
            portion = next_portion(self.conn, compiled, proves=proves)
        else:
            portion = Portion(quick(self.conn, compiled, proves=proves), whole=True)
        found = portion.found
        written = {one.slice for one in found if one.relation != READ}
        # A reader of a changed stream has correctly read other rows than the stream has now.
        unread = [one for one in found if one.relation == READ and build.upstream_id not in self.damaged]
        if written and not self.heals:
            self.damaged.add(build.build_id)
        if self.depth == "quick":
            self.result.add_slices(compiled, build.projection, [one for one in found if one.relation != READ] + unread)
        elif not found:
            if self.heals and portion.whole:
                self._agrees(build, "checksums agree")
        elif not self.heals:
            self._look(build, compiled, written, unread)
        elif unread and not compiled.statements.reads_by_slice:
            self._recount(build, compiled, unread, _evidence(self.depth, compiled, build, found))
        else:
            evidence = _evidence(self.depth, compiled, build, found)
            # A portion with findings proves nothing: earlier ones of its round may not have been healed.
            began = began_at if portion.whole and proves else None
            self.heal(build, written, evidence, unread={one.slice for one in unread}, began_at=began)

    def _look(self, build: Build, compiled: CompiledBuild, written: set[int], unread: Sequence[Disagreement]) -> None:
        """Report the differences that healing would find in slices that differ from their checksums."""
        self.result.add_slices(compiled, build.projection, unread)
        suspects = parts(compiled, written)
        if unread and not compiled.statements.reads_by_slice:
            suspects = list(deep.steps(self.conn, compiled, resume=False))
        elif unread:
            with snapshot(self.conn):
                parameters = parameters_of(self.conn, as_kept(self.conn, compiled))
                behind = reads.slices_behind(self.conn, compiled, parameters, runs(one.slice for one in unread))
            suspects = parts(compiled, written | behind)
        for part in suspects:
            self.result.add(audit(self.conn, compiled, keep=True, ranges=part).report)

    def _deep(self, build: Build, compiled: CompiledBuild) -> None:
        with snapshot(self.conn):
            seen = as_kept(self.conn, compiled)
            unread = reads.disagreements(self.conn, compiled, seen, parameters_of(self.conn, seen))
        before = self.result.drift
        if unread and self.heals:
            self._recount(build, compiled, unread, _evidence(self.depth, compiled, build, unread))
        else:
            self.result.add_slices(compiled, build.projection, unread)
            self._steps(build, compiled, resume=self.heals)
        if self.heals and self.result.drift == before:
            self._agrees(build, "recomputed, and equal")

    def _steps(self, build: Build, compiled: CompiledBuild, *, resume: bool, goes_on: bool = False) -> int:
        """Audit and heal all slices that are left of a round, and return how many differed."""
        differed = [0]
        for ranges in deep.steps(self.conn, compiled, resume=resume, differed=lambda: differed[-1]):
            look = partial(audit, self.conn, compiled, keep=not self.heals, ranges=ranges)
            try:
                found = look()
            except Exception as error:
                if not (goes_on and caused_by_event(error)):
                    raise
                leave_out_culprits(self.conn, self.compiler, build, ranges)
                found = look()
            self.result.add(found.report)
            if found.suspects and self.heals:
                self.heal(build, found.suspects, {"depth": "deep"})
            differed.append(len(found.suspects))
        return sum(differed)

    def _recount(
        self, build: Build, compiled: CompiledBuild, unread: Sequence[Disagreement], evidence: Mapping[str, object]
    ) -> None:
        """Evaluate all slices of a build that has missed rows of its stream or read them twice."""
        began_at = self._now()
        detected = self._detect(build, evidence)
        with self._nothing_from_damage(build, evidence, detected):
            self.proof.read(self.conn, compiled, (one.slice for one in unread))
        before = self.result.drift
        # From the start: a step of an interrupted audit may be older than the missed rows. And beyond failures: the
        # missed events may be those that fail.
        differed = self._steps(build, compiled, resume=False, goes_on=True)
        told = ReconcileReport()
        with self.conn.transaction():
            locked = lock(self.conn, build.build_id, wait=True)
            if locked is None or locked.upstream_id != compiled.upstream_id:
                raise BuildError(f"{build.table_name} was replaced during the audit")
            now = reads.disagreements(self.conn, compiled, locked, parameters_of(self.conn, locked))
            # Rows that were missed since are left to the next audit.
            same = [one for one in now if one.signature in {other.signature for other in unread}]
            correct(self.conn, build.build_id, same)
            if self.result.drift == before:
                told.add_checksums(compiled, build.projection, same)
            if detected is None and not drift_is_expected():
                incidents.detect(self.conn, "drift", build.projection, by=self.by, evidence=evidence)
            incidents.resolve(self.conn, "drift", build.projection, by=self.by, outcome=outcome(told))
            if len(same) == len(now):
                proofs.add(self.conn, locked, "deep", began_at=began_at, differed=differed + len(unread))
        self.result.checksums += told.checksums

    def _since(self, build: Build, compiled: CompiledBuild, since: datetime) -> None:
        if not _has_ts(self.conn, build):
            raise BuildError(f"{compiled.plan.stream} has no column ts, which an audit since a time needs")
        if build.upstream_id is not None and audit(self.conn, compiled, since).suspects:
            # Its keys may have events before `since`. The audit of its streams began at `since`, so drift before that
            # may be the cause.
            for stream in streams_of(self.conn, build):
                suspects = audit(self.conn, self.compiler.of(self.conn, stream)).suspects
                if suspects and self.heals:
                    self.heal(stream, suspects, {"depth": "deep"})
                elif suspects:
                    raise BuildError(f"it reads {stream.projection}, which has drifted and must be healed first")
        found = audit(self.conn, compiled, since, keep=not self.heals)
        self.result.add(found.report)
        if found.suspects and self.heals:
            self.heal(build, found.suspects, {"depth": "deep", "since": since.isoformat()})

    def heal(
        self,
        build: Build,
        suspects: set[int],
        evidence: Mapping[str, object],
        *,
        unread: Set[int] = frozenset(),
        began_at: datetime | None = None,
    ) -> None:
        """Heal slices of a build, and record an incident with its evidence, outcome and duration.

        Args:
            build: the build.
            suspects: its slices that differ.
            unread: slices of its stream from which it has read other rows than its cursor says.
            evidence: the findings. Only a deep audit adds `depth`, which later findings do not overwrite.
            began_at: when the quick audit began that found these slices, and no others: then the healing proves the
                build.
        """
        detected = self._detect(build, evidence)
        with (
            tracing.work("heal", build.projection, build=build.build_id, slices=len(suspects | unread)) as span,
            self._nothing_from_damage(build, evidence, detected),
            self.conn.transaction(),
        ):
            told = heal(self.conn, self.compiler, build, suspects, unread=unread, proof=self.proof)
            span.note(**{kind: count for kind, count in by_kind(told).items() if count})
            if detected is not None:
                span.note(incident=detected.incident_id)
            if detected is None and not drift_is_expected():
                incidents.detect(self.conn, "drift", build.projection, by=self.by, evidence=evidence)
            if told.beyond:
                left = {"not_healed": [f"{one.relation}: {one.slice}" for one in told.beyond[:KEYS]]}
                incidents.detect(self.conn, "drift", build.projection, by=self.by, evidence={**evidence, **left})
            # This healing may not cover what a deep audit has found and could not heal.
            elif "depth" in evidence or not self._open(build, f"i.{_DEEP}"):
                incidents.resolve(self.conn, "drift", build.projection, by=self.by, outcome=outcome(told))
            if began_at is not None and not told.beyond:
                self._record_healed(build, began_at, len(suspects) + len(unread))
        self.result.add(told)
        if told.beyond:
            raise BeyondLog(build.table_name, {one.slice for one in told.beyond})

    def _record_healed(self, build: Build, began_at: datetime, differed: int) -> None:
        compiled = self.compiler.of(self.conn, build)
        locked = by_id(self.conn, build.build_id)
        if locked.upstream_id == compiled.upstream_id:
            record_quick(self.conn, compiled, locked, began_at=began_at, differed=differed)

    def _now(self) -> datetime:
        """Return the server's time, which precedes the next snapshot."""
        now: datetime = one_row(self.conn, "SELECT clock_timestamp()")[0]
        return now

    def _detect(self, build: Build, evidence: Mapping[str, object]) -> Detected | None:
        """Open an incident for drift, or return None while the log is damaged: that may be the cause, and is one fault.

        Then the incident is opened when it is known that the damage is not the cause. None also if drift is expected:
        then one is opened when it cannot be healed.
        """
        if drift_is_expected():
            return None
        new = not self._open(build, "true")
        if new and incidents.open_incidents(self.conn, "log_damage"):
            return None
        number = incidents.detect(self.conn, "drift", build.projection, by=self.by, evidence=evidence)
        return Detected(number, new)

    @contextmanager
    def _nothing_from_damage(
        self, build: Build, evidence: Mapping[str, object], detected: Detected | None
    ) -> Iterator[None]:
        """Record damage of the log if the block finds any: one incident, which names the builds that it affects."""
        try:
            yield
        except LogDamaged as error:
            with self.conn.transaction():
                segment = error.damage[0].segment
                if detected is not None and detected.new:
                    # What looked like drift of this build is damage of the log.
                    if incidents.open_incidents(self.conn, "log_damage", subject=segment):
                        because = {"because": f"the log is damaged: see log_damage of {segment}"}
                        incidents.resolve(self.conn, "drift", build.projection, by=self.by, outcome=because)
                    else:
                        incidents.become(self.conn, detected.incident_id, "log_damage", segment, {})
                leave(self.conn, error.damage, error.slices, by=self.by, not_healed=build.projection)
            self.result.unhealed.append(build.projection)
            raise
        except Exception as error:
            if caused_by_event(error):
                # Damage may be the cause: rows of an event that is in the log twice cannot be written, for example.
                # Only known damage is checked, which is fast, because every attempt fails like this.
                with self._nothing_from_damage(build, evidence, detected), self.conn.transaction():
                    refuse_known(self.conn)
            if detected is None and not self.conn.closed:
                incidents.detect(self.conn, "drift", build.projection, by=self.by, evidence=evidence)
            raise

    def _agrees(self, build: Build, because: str) -> None:
        """Resolve the incident of an interrupted run. Checksums alone cannot resolve the finding of a deep audit."""
        # They can for a build that was created since; a time of creation in the future does not count.
        seen = "true" if self.depth == "deep" else f"(NOT i.{_DEEP} OR i.detected_at < %s AND %s <= clock_timestamp())"
        if self._open(build, seen, *([] if self.depth == "deep" else [build.created_at] * 2)):
            incidents.resolve(self.conn, "drift", build.projection, by=self.by, outcome={"found": because})

    def _open(self, build: Build, condition: str, *parameters: object) -> bool:
        found = incidents.find(
            self.conn,
            f"i.kind = 'drift' AND i.subject = %s AND i.resolved_at IS NULL AND {condition}",
            build.projection,
            *parameters,
        )
        return bool(found)


def _evidence(depth: Depth, compiled: CompiledBuild, build: Build, found: Sequence[Disagreement]) -> dict[str, object]:
    seen = ReconcileReport()
    seen.add_slices(compiled, build.projection, found)
    slices = [f"{one.relation}: {one.slice}" for one in seen.slices[:KEYS]]
    return {"slices": slices} | ({"depth": depth} if depth == "deep" else {})


def outcome(healed: ReconcileReport) -> dict[str, object]:
    """Return the repairs in the form that an incident stores."""
    named = [] if incidents_are_nameless() else healed.findings[:KEYS]
    return {
        "healed": {f"{relation}: {kind}": count for (_, relation, kind), count in sorted(healed.counts.items())},
        "keys": [{"relation": one.relation, **one.key} for one in named],
        "checksums": [f"{one.relation}: {one.slice}" for one in healed.checksums[:KEYS]],
    }


def by_kind(report: ReconcileReport) -> Counter[str]:
    """Return the number of findings by kind: missing, orphan, drifted."""
    counts: Counter[str] = Counter()
    for (_, _, kind), count in report.counts.items():
        counts[kind] += count
    return counts


def _has_ts(conn: psycopg.Connection, build: Build) -> bool:
    if build.upstream_id is None:
        return "ts" in LOG_COLUMNS
    row = conn.execute(
        """
        SELECT EXISTS (
            SELECT FROM pg_attribute AS a JOIN refold.builds AS u ON u.build_id = %s
            WHERE a.attrelid = to_regclass('refold_builds.' || quote_ident(u.table_name)) AND a.attname = 'ts')
        """,
        (build.upstream_id,),
    ).fetchone()
    return row is not None and bool(row[0])
