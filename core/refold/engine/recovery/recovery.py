"""`refold recover`: its steps, in an order that allows a kill after any of them and another run.

Until the last step the database keeps its foreign system identifier (or none, while coordinates are rewritten): workers
refuse to start, and a trigger holds the cursors of running ones. Producers may append all the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from refold.engine.archive.advance import Advanced, advance
from refold.engine.archive.failures import StoreFailed
from refold.engine.archive.ledger import rebuild, rehash
from refold.engine.deployment.deploy import one_at_a_time
from refold.engine.erasure import restored as erasure
from refold.engine.publish.switch import drop_superseded
from refold.engine.publish.views import drop_view, switch_view
from refold.engine.reconcile.archived import follow_archive
from refold.engine.reconcile.audit import audit, parameters_of
from refold.engine.reconcile.heal import heal
from refold.engine.reconcile.nameless import nameless
from refold.engine.reconcile.result import ReconcileReport
from refold.engine.recovery import ledger
from refold.engine.recovery.coordinates import (
    draw_from_the_end,
    rewrite_build,
    rewrite_log,
    settle_dead_letters,
    unload,
)
from refold.engine.recovery.survey import Survey, foreign_store, insist_on_schema, survey
from refold.errors import BuildError, RefoldError
from refold.postgres.failpoints import failpoint
from refold.postgres.session import plan_freely
from refold.postgres.sqlstate import caused_by_event
from refold.store import archives, sinks, totals
from refold.store.builds import proofs, state
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import Build, by_id, lock, set_error
from refold.store.builds.checksums import take
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import described
from refold.store.builds.first_load import start_over, tables_of
from refold.store.incidents import detect, open_incidents, resolve
from refold.store.log import integrity
from refold.store.log.damage import look_again
from refold.store.log.guards import require_owner
from refold.store.log.integrity import LogDamaged
from refold.store.schema.cluster import REWRITE_IN_PROGRESS

BY = "refold recover"
ROUNDS = 3
"""Most audits of a build; each follows the healing of the drift that the audit before found."""
OPEN_S = 30.0
"""Seconds to wait for transactions that were open before the recovery."""


@dataclass(slots=True)
class RecoveryReport:
    """The findings and actions of a recovery.

    Args:
        survey: the state before.
        rewritten: events that got new coordinates.
        drift: the drift that the audits found and healed.
        unread: estimated events that each projection had not read in the backup, by name; they are applied now.
        damaged: slices of these projections that differed even without the unread events.
        dead_letters: ids of dead letters whose event is no longer in the log, by table.
        unloaded: builds that could not be audited, each with the reason; their first load starts again.
        paused: sinks that do not deliver until a person resumes them.
        archive: whether nothing is archived until a person claims the store.
        erased: erasures that the restored database did not know, done again.
        not_erased: why the erasures in the archive's store could not be done again; None: they were.
        manifest: what the archive has that the restored manifest did not know, or the other way round.
        cold: number of buckets of the cold ledger that were made again from the archive.
        seconds: duration of the recovery.
    """

    survey: Survey
    rewritten: int = 0
    drift: ReconcileReport = field(default_factory=ReconcileReport)
    unread: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, set[int]] = field(default_factory=dict)
    dead_letters: dict[str, list[str]] = field(default_factory=dict)
    unloaded: list[tuple[Build, str]] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    archive: bool = False
    erased: int = 0
    not_erased: str | None = None
    manifest: Advanced = field(default_factory=Advanced)
    cold: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dict, for JSON and for the incident."""
        return {
            **self.survey.as_dict(),
            "rewritten": self.rewritten,
            "healed": [
                {"projection": name, "relation": relation, "kind": kind, "rows": count}
                for (name, relation, kind), count in sorted(self.drift.counts.items())
            ],
            "audited": self.drift.audited,
            "unread": self.unread,
            "dead_letters_without_event": self.dead_letters,
            "loaded_anew": [{"table": build.table_name, "because": because} for build, because in self.unloaded],
            "paused_sinks": self.paused,
            "archive_to_claim": self.archive,
            "erased": self.erased,
            "not_erased": self.not_erased,
            "manifest": self.manifest.as_dict(),
            "cold_buckets": self.cold,
            "seconds": round(self.seconds, 3),
        }


def recover(
    conn: psycopg.Connection,
    projections: Path | None,
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> RecoveryReport:
    """Make every build equal its query again after a restore, then let workers run; return a report.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        projections: the folder of transforms, as they were deployed in the restored database.
        progress: called with the name of every step.

    Raises:
        DatabaseError: the login may not act as the owner, a schema is missing, or the log holds an event twice.
        BuildError: another recovery or deploy is running, a transform's code is missing, or a transaction blocks the
            recovery. Completed steps stay, and another run continues after them.
    """
    require_owner(conn)
    insist_on_schema(conn)
    # Do not wait for a deploy that begins: it does not expect a restored database.
    with one_at_a_time(conn, "deploy or recover", seconds=0):
        # Who is to be erased again, and nowhere else than in memory.
        said: dict[bytes, str] = {}
        result = _recover(conn, projections, progress, said)
    progress("erasures")
    _erase_again(conn, projections, result, said)
    return result


def _recover(
    conn: psycopg.Connection, projections: Path | None, progress: Callable[[str], None], said: dict[bytes, str]
) -> RecoveryReport:
    started = time.perf_counter()
    progress("surveying")
    plan = _survey_until_quiet(conn, projections)
    subject = conn.info.dbname
    result = RecoveryReport(plan)
    strategy = plan.decision.strategy
    if strategy != "prove":
        detect(conn, "foreign_cluster", subject, by=BY, evidence=plan.as_dict())
    compiler = Compiler(projections)
    if strategy == "rewrite":
        if plan.cluster.recorded != REWRITE_IN_PROGRESS:
            progress("finding unread events")
            _look_behind(conn, compiler, result)
        _identify(conn, REWRITE_IN_PROGRESS)
    with conn.transaction():
        proofs.forget_all(conn)
        totals.forget_cursor(conn)
    failpoint("recover_begun")
    progress("comparing the archive with its manifest")
    result.manifest = advance(conn, by=BY)
    draw_from_the_end(conn)
    _arm(conn)
    if plan.cluster.rehashed:
        progress("computing digests")
        ledger.rehash(conn)
        rehash(conn)
        result.cold = _rehash_cold(conn)
    if strategy == "rewrite":
        progress("rewriting the log's coordinates")
        result.rewritten = rewrite_log(conn)
    progress("completing the ledger")
    again = strategy == "rewrite" or plan.cluster.rehashed
    ledger.bring_in_order(conn, ledger.compare(conn) if again else plan.ledger)
    ledger.settle_lost(conn)
    look_again(conn, by=BY)
    failpoint("recover_ledger")
    _part(conn, plan)
    for build in plan.of("audited"):
        if strategy == "rewrite":
            progress(f"rewriting the coordinates of {build.table_name}")
            rewrite_build(conn, build)
            failpoint("recover_build")
    progress("healing what stands for purged events")
    with nameless() if _gone(conn, said) else nullcontext():
        _follow(conn, compiler, result)
        _audit(conn, compiler, result, progress)
    failpoint("recover_proved")
    result.seconds = time.perf_counter() - started
    with conn.transaction():
        if strategy != "prove":
            result.paused = sinks.restored(conn)
            result.archive = archives.disown(conn)
        else:
            result.archive = _foreign_store(conn)
        _identify(conn, plan.cluster.actual)
        resolve(conn, "foreign_cluster", subject, by=BY, outcome=result.as_dict())
    return result


def _gone(conn: psycopg.Connection, said: dict[bytes, str]) -> bool:
    """Return whether files of purged segments may lack people who are in the restored database, and note who they are.

    Nothing tells that after the healing, whose records must not have keys and rows for the same reason.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        said: gets the people whom the database names, by their HMACs.
    """
    if integrity.floor(conn) == 1:
        return False
    try:
        records = erasure.unknown(conn)
    except RefoldError:
        return True
    said.update(erasure.said(conn, records))
    return bool(records) or _followed(conn)


def _foreign_store(conn: psycopg.Connection) -> bool:
    try:
        return foreign_store(conn)
    except StoreFailed:
        return False  # `refold archive status` tells when the store answers.


def _followed(conn: psycopg.Connection) -> bool:
    """Return whether other files have purged events now, as this or a killed recovery found."""
    return any(one.evidence.get("file") for one in open_incidents(conn, "drift"))


def _follow(conn: psycopg.Connection, compiler: Compiler, result: RecoveryReport) -> None:
    """Heal what stands for purged events if other files have them now."""
    if not _followed(conn):
        return
    try:
        follow_archive(conn, compiler, by=BY)
    except (StoreFailed, BuildError) as error:
        result.manifest.failed = str(error)


def _erase_again(
    conn: psycopg.Connection, projections: Path | None, result: RecoveryReport, said: erasure.Said
) -> None:
    """Do the erasures of the archive's store again that the backup does not have; the recovery itself is done."""
    failed: list[str] = []
    try:
        for content in erasure.recorded(conn):
            try:
                result.erased += len(erasure.apply(conn, Compiler(projections), content, said=said))
            except RefoldError as error:
                failed.append(str(error))
    except RefoldError as error:
        failed.append(str(error))
    # Many fail for the same reason.
    result.not_erased = "; ".join(dict.fromkeys(failed)) or None


def _rehash_cold(conn: psycopg.Connection) -> int:
    """Compute the digests in the cold ledger with this server's hash functions; its ids do not depend on them."""
    if not conn.execute("SELECT FROM refold.cold_ids LIMIT 1").rowcount:
        return 0
    return rebuild(conn, None)


def _survey_until_quiet(conn: psycopg.Connection, projections: Path | None) -> Survey:
    """Return a survey, repeated until no open transaction could change its findings."""
    until = time.monotonic() + OPEN_S
    while (found := survey(conn, projections)).decision.strategy == "wait":
        if time.monotonic() > until:
            raise BuildError(
                f"{found.decision.because}; a cursor would skip events that it appends",
                remedy="End it (see pg_stat_activity.backend_xid or pg_prepared_xacts for its session), then run "
                "`refold recover` again.",
            )
        time.sleep(0.2)
    return found


def _look_behind(conn: psycopg.Connection, compiler: Compiler, result: RecoveryReport) -> None:
    """Record which builds have unread events, and which of their slices differ, while the cursors are still valid.

    Later all builds have the cursor `EVERYTHING`, and an event that was merely unread looks like a missing row.
    """
    for build in result.survey.of("audited"):
        row = conn.execute(
            "SELECT u.events FROM refold.builds_now AS b CROSS JOIN LATERAL"
            " refold.unread(b.done, b.target, b.progress_txid, b.progress_position) AS u WHERE b.build_id = %s",
            (build.build_id,),
        ).fetchone()
        if row is None or not row[0]:
            continue
        try:
            result.damaged[build.projection] = audit(conn, compiler.of(conn, build)).suspects
        except Exception as error:
            if not (isinstance(error, BuildError) or caused_by_event(error)):
                raise
            # The audit fails, so the report shows unread events of this build as drift.
            continue
        result.unread[build.projection] = int(row[0])


def _identify(conn: psycopg.Connection, identifier: int) -> None:
    """Store the system identifier of the cluster that the coordinates belong to."""
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute("UPDATE refold.settings SET system_identifier = %s", (identifier,))
        if identifier != REWRITE_IN_PROGRESS:
            conn.execute("UPDATE refold.settings SET hash_probe = refold.hash_probe()")
        # The caller's transaction may go on.
        conn.execute("SET LOCAL ROLE refold_worker")


def _arm(conn: psycopg.Connection) -> None:
    """Restore the guards of the log: a restore of rows only may leave them disabled."""
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute("SELECT refold.arm_guards()")


def _part(conn: psycopg.Connection, plan: Survey) -> None:
    """Drop the builds that cannot be kept, and start unfinished first loads again."""
    for build in reversed(plan.of("lost")):
        with conn.transaction():
            if build.state == "live":
                _drop_view(conn, build)
            for table in tables_of(conn, build.table_name):
                conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("refold_builds", table)))
            state.lose(conn, build)
    if plan.of("dropped"):
        drop_superseded(conn, keep=0)
    if plan.decision.strategy != "prove":
        for build in plan.of("loaded again"):
            with conn.transaction():
                start_over(conn, build)


def _drop_view(conn: psycopg.Connection, build: Build) -> None:
    try:
        drop_view(conn, build.projection)
    except psycopg.errors.DependentObjectsStillExist as error:
        raise BuildError(
            f"the table of {build.projection} or of its upstream was not restored, but {error.diag.message_detail}",
            remedy="Drop the views that depend on it, and run `refold recover` again.",
        ) from error


def _audit(
    conn: psycopg.Connection, compiler: Compiler, result: RecoveryReport, progress: Callable[[str], None]
) -> None:
    """Audit and heal each build after its streams; if that fails, start its first load again, and those of its readers.

    An audit fails if the query raises an error for an event that was unread in the backup or arrived since. The first
    load makes it a dead letter, which an audit cannot do. So a failing projection does not block the others.
    """
    unloaded: dict[int | None, str] = {}
    for build in result.survey.of("audited"):
        progress(f"auditing {build.projection}")
        try:
            if build.upstream_id in unloaded:
                raise BuildError(f"it reads {unloaded[build.upstream_id]}, which is loaded again")
            _prove(conn, compiler, build, result)
        except Exception as error:
            if isinstance(error, LogDamaged) or not (isinstance(error, BuildError) or caused_by_event(error)):
                # A damaged log must not be loaded from either.
                raise
            unload(conn, build)
            unloaded[build.build_id] = build.projection
            result.unloaded.append((build, str(error) if isinstance(error, BuildError) else described(error)))
        failpoint("recover_audited")


def _read_on(conn: psycopg.Connection, compiler: Compiler, build: Build, behind: set[int]) -> None:
    """Apply the unread events of a build by healing their slices, without recording a repair."""
    with conn.transaction():
        last = conn.execute("SELECT coalesce(max(repair_id), 0) FROM refold.repairs").fetchone()
        heal(conn, compiler, build, behind, readers=False)
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute(
            "DELETE FROM refold.repairs WHERE repair_id > %s AND build_id = %s", (*(last or (0,)), build.build_id)
        )
        conn.execute("SET LOCAL ROLE refold_worker")


def _prove(conn: psycopg.Connection, compiler: Compiler, build: Build, result: RecoveryReport) -> None:
    """Audit and heal a build until nothing differs; its streams are audited already.

    All other records about the rows of a build are computed again here.
    """
    compiled = compiler.of(conn, build)
    lost = settle_dead_letters(conn, build, compiled.stream.table)
    if lost:
        result.dead_letters[build.table_name] = lost
    statements, rehashed = compiled.statements, result.survey.cluster.rehashed
    if result.survey.decision.strategy == "rewrite" or rehashed:
        # The stored checksums are of rows with other coordinates or hashes.
        with conn.transaction():
            # Rows of a base have no coordinates.
            take(conn, build.build_id, statements.kept if rehashed else statements.relations)
    for _ in range(ROUNDS):
        suspects = audit(conn, compiled).suspects
        if not suspects:
            break
        # Readers are audited next. But with `prove` workers may run, and readers must not differ for long.
        readers = result.survey.decision.strategy == "prove"
        damaged = result.damaged.get(build.projection, suspects)
        if suspects & damaged:
            healed = heal(conn, compiler, by_id(conn, build.build_id), suspects & damaged, readers=readers)
            result.drift.add(healed)
        if suspects - damaged:
            _read_on(conn, compiler, by_id(conn, build.build_id), suspects - damaged)
    else:
        raise BuildError(f"{build.table_name} still differs from its query after {ROUNDS} rounds of healing")
    with conn.transaction():
        plan_freely(conn)
        locked = lock(conn, build.build_id, wait=True)
        if locked is not None:
            reads.take(conn, compiled, parameters_of(conn, locked))
    result.drift.audited.append(build.projection)
    set_error(conn, build, None)
    shown = conn.execute(
        "SELECT to_regclass('metrics.' || quote_ident(%s)) IS NOT NULL", (build.projection,)
    ).fetchone()
    if build.state == "live" and shown != (True,):
        # The schema `metrics` was not restored.
        with conn.transaction():
            switch_view(conn, build.projection, compiled)
