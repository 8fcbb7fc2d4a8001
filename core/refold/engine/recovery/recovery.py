"""`refold recover`: the steps, in an order in which it may be killed after any of them and run again.

Until the last step the database keeps its foreign system identifier (or none, once coordinates are being rewritten):
workers refuse to start, and the cursors of those that run are held by a trigger. Producers may go on all the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from refold.engine.deployment.deploy import one_at_a_time
from refold.engine.publish.switch import drop_superseded
from refold.engine.publish.views import drop_view, switch_view
from refold.engine.reconcile.audit import audit, parameters_of
from refold.engine.reconcile.heal import heal
from refold.engine.reconcile.result import ReconcileReport
from refold.engine.recovery import ledger
from refold.engine.recovery.coordinates import (
    draw_from_the_end,
    rewrite_build,
    rewrite_log,
    settle_dead_letters,
    unload,
)
from refold.engine.recovery.survey import Survey, insist_on_schema, survey
from refold.errors import BuildError
from refold.postgres.failpoints import failpoint
from refold.postgres.session import plan_freely
from refold.postgres.sqlstate import caused_by_event
from refold.store.builds import read_checksums as reads
from refold.store.builds import state
from refold.store.builds.build import Build, by_id, lock, set_error
from refold.store.builds.checksums import take
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import described
from refold.store.builds.first_load import start_over, tables_of
from refold.store.incidents import detect, resolve
from refold.store.log.damage import look_again
from refold.store.log.guards import require_owner
from refold.store.log.integrity import LogDamaged
from refold.store.schema.cluster import REWRITE_IN_PROGRESS

BY = "refold recover"
ROUNDS = 3
"""Audits of a build, each after the healing of what the one before it found."""
OPEN_S = 30.0
"""Seconds for which a transaction is waited for that was open before."""


@dataclass(slots=True)
class RecoveryReport:
    """What a recovery found and did.

    Args:
        survey: how things stood.
        rewritten: events that got new coordinates.
        drift: what the audits found and healed.
        unread: about how many events each projection had not read in what was restored; they have been applied since.
        damaged: of those projections, the slices that were not as they must be even without these events.
        dead_letters: dead letters whose event is not in the log any more, by table.
        unloaded: builds that could not be audited, and why; workers load them anew, as at first.
        seconds: how long it took.
    """

    survey: Survey
    rewritten: int = 0
    drift: ReconcileReport = field(default_factory=ReconcileReport)
    unread: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, set[int]] = field(default_factory=dict)
    dead_letters: dict[str, list[str]] = field(default_factory=dict)
    unloaded: list[tuple[Build, str]] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON, and for the incident."""
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
            "seconds": round(self.seconds, 3),
        }


def recover(
    conn: psycopg.Connection,
    projections: Path | None,
    *,
    progress: Callable[[str], None] = lambda step: None,
) -> RecoveryReport:
    """Brings every build back under the law after a restore, then lets workers run again.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        projections: the folder of transforms, as they were deployed in what was restored.
        progress: told of every step.

    Raises:
        DatabaseError: the login may not act as the owner, the schema is not whole, or the log holds an event twice.
        BuildError: another recovery or deploy is at it, a transform's code is not here, or a transaction is in the
            way. What was done stays; the same command goes on from there.
    """
    require_owner(conn)
    insist_on_schema(conn)
    # A deploy that is being begun is not waited for: what was restored is not what it thinks.
    with one_at_a_time(conn, "deploy or recover", seconds=0):
        return _recover(conn, projections, progress)


def _recover(conn: psycopg.Connection, projections: Path | None, progress: Callable[[str], None]) -> RecoveryReport:
    started = time.perf_counter()
    progress("looking")
    plan = _survey_until_quiet(conn, projections)
    subject = conn.info.dbname
    result = RecoveryReport(plan)
    strategy = plan.decision.strategy
    if strategy != "prove":
        detect(conn, "foreign_cluster", subject, by=BY, evidence=plan.as_dict())
    compiler = Compiler(projections)
    if strategy == "rewrite":
        if plan.cluster.recorded != REWRITE_IN_PROGRESS:
            progress("what was not read yet")
            _look_behind(conn, compiler, result)
        _identify(conn, REWRITE_IN_PROGRESS)
    failpoint("recover_begun")
    draw_from_the_end(conn)
    _arm(conn)
    if plan.cluster.rehashed:
        progress("the digests")
        ledger.rehash(conn)
    if strategy == "rewrite":
        progress("the log's coordinates")
        result.rewritten = rewrite_log(conn)
    progress("the ledger")
    again = strategy == "rewrite" or plan.cluster.rehashed
    ledger.bring_in_order(conn, ledger.compare(conn) if again else plan.ledger)
    ledger.settle_lost(conn)
    look_again(conn, by=BY)
    failpoint("recover_ledger")
    _part(conn, plan)
    for build in plan.of("audited"):
        if strategy == "rewrite":
            progress(f"the coordinates of {build.table_name}")
            rewrite_build(conn, build)
            failpoint("recover_build")
    _audit(conn, compiler, result, progress)
    failpoint("recover_proved")
    result.seconds = time.perf_counter() - started
    with conn.transaction():
        _identify(conn, plan.cluster.actual)
        resolve(conn, "foreign_cluster", subject, by=BY, outcome=result.as_dict())
    return result


def _survey_until_quiet(conn: psycopg.Connection, projections: Path | None) -> Survey:
    """The survey; while a transaction is open that could make a difference, once more."""
    until = time.monotonic() + OPEN_S
    while (found := survey(conn, projections)).decision.strategy == "wait":
        if time.monotonic() > until:
            raise BuildError(
                f"{found.decision.because}: what it appends yet, a cursor would skip",
                remedy="End it (pg_stat_activity.backend_xid, or pg_prepared_xacts, names who has it), then run "
                "`refold recover` again.",
            )
        time.sleep(0.2)
    return found


def _look_behind(conn: psycopg.Connection, compiler: Compiler, result: RecoveryReport) -> None:
    """Looks, while the cursors still mean something, which builds were behind, and what is wrong with them besides.

    Later they all have the cursor of everything, and an event that was merely unread looks like a row that is missing.
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
            # What cannot be told apart is told as damage.
            continue
        result.unread[build.projection] = int(row[0])


def _identify(conn: psycopg.Connection, identifier: int) -> None:
    """Says which cluster the coordinates speak of."""
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute("UPDATE refold.settings SET system_identifier = %s", (identifier,))
        if identifier != REWRITE_IN_PROGRESS:
            conn.execute("UPDATE refold.settings SET hash_probe = refold.hash_probe()")
        # To the caller's transaction, where this is a part of one.
        conn.execute("SET LOCAL ROLE refold_worker")


def _arm(conn: psycopg.Connection) -> None:
    """Puts the guards of the log back as they must stand: a restore of its rows alone leaves them otherwise."""
    with conn.transaction():
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute("SELECT refold.arm_guards()")


def _part(conn: psycopg.Connection, plan: Survey) -> None:
    """Ends what cannot be kept, and starts first loads over."""
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
            f"the table of {build.projection} or of what it reads was not restored, but {error.diag.message_detail}",
            remedy="Drop what stands on it, and run `refold recover` again.",
        ) from error


def _audit(
    conn: psycopg.Connection, compiler: Compiler, result: RecoveryReport, progress: Callable[[str], None]
) -> None:
    """Proves each build, its streams before it. Where that fails, the build is loaded anew, and what reads it too.

    That is for an event of which its query makes an error: an event that was unread in the backup, or came since.
    The first load sets it aside, which an audit cannot; and one projection that fails keeps no other from being used.
    """
    unloaded: dict[int | None, str] = {}
    for build in result.survey.of("audited"):
        progress(f"auditing {build.projection}")
        try:
            if build.upstream_id in unloaded:
                raise BuildError(f"it reads {unloaded[build.upstream_id]}, which is loaded anew")
            _prove(conn, compiler, build, result)
        except Exception as error:
            if isinstance(error, LogDamaged) or not (isinstance(error, BuildError) or caused_by_event(error)):
                # From a damaged log it must not be loaded either.
                raise
            unload(conn, build)
            unloaded[build.build_id] = build.projection
            result.unloaded.append((build, str(error) if isinstance(error, BuildError) else described(error)))
        failpoint("recover_audited")


def _read_on(conn: psycopg.Connection, compiler: Compiler, build: Build, behind: set[int]) -> None:
    """Applies what a build had not read yet, by the means of healing. It is no repair, and not recorded as one."""
    with conn.transaction():
        last = conn.execute("SELECT coalesce(max(repair_id), 0) FROM refold.repairs").fetchone()
        heal(conn, compiler, build, behind, readers=False)
        conn.execute("SET LOCAL ROLE refold_owner")
        conn.execute(
            "DELETE FROM refold.repairs WHERE repair_id > %s AND build_id = %s", (*(last or (0,)), build.build_id)
        )
        conn.execute("SET LOCAL ROLE refold_worker")


def _prove(conn: psycopg.Connection, compiler: Compiler, build: Build, result: RecoveryReport) -> None:
    """Audits a build whose streams have been proved, heals what differs, and audits it again until nothing does.

    Whatever else is kept about a build's rows has to be made anew here.
    """
    compiled = compiler.of(conn, build)
    lost = settle_dead_letters(conn, build, compiled.stream.table)
    if lost:
        result.dead_letters[build.table_name] = lost
    if result.survey.decision.strategy == "rewrite" or result.survey.cluster.rehashed:
        # The rows have other coordinates, or hashes, than when those were summed up.
        with conn.transaction():
            take(conn, build.build_id, compiled.statements.relations)
    for _ in range(ROUNDS):
        suspects = audit(conn, compiled).suspects
        if not suspects:
            break
        # They come next. But where workers run, nobody may be left with a reader that differs for long.
        readers = result.survey.decision.strategy == "prove"
        damaged = result.damaged.get(build.projection, suspects)
        if suspects & damaged:
            healed = heal(conn, compiler, by_id(conn, build.build_id), suspects & damaged, readers=readers)
            result.drift.add(healed)
        if suspects - damaged:
            _read_on(conn, compiler, by_id(conn, build.build_id), suspects - damaged)
    else:
        raise BuildError(f"{build.table_name} still differs from its query after it was healed")
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
        # Only the other schemas were restored.
        with conn.transaction():
            switch_view(conn, build.projection, compiled)
