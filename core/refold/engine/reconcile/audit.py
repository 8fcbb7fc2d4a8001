"""The audit: comparing a build with its query over the stream, as of the build's cursor.

A REPEATABLE READ snapshot shows cursor, table and stream at the same instant. So an event that is not applied yet is
lag and never drift, also under load. The audit takes no locks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

import psycopg

from refold.engine.reconcile.compare import compare, differences, slices
from refold.engine.reconcile.recomputed import AMONG_THEM, recompute
from refold.engine.reconcile.result import AuditResult, ReconcileReport
from refold.engine.reconcile.scope import WHOLE, Scope, both, within
from refold.engine.reconcile.scope import since as since_scope
from refold.errors import BuildError
from refold.model.sql_text import EVERYTHING
from refold.model.stream.parameters import cursor_parameters
from refold.model.stream.slices import EVERY_SLICE, Range, runs
from refold.postgres.session import plan_freely
from refold.store.builds import proofs
from refold.store.builds import read_checksums as reads
from refold.store.builds.build import Build, by_id
from refold.store.builds.checksums import Disagreement, disagreements
from refold.store.builds.compiled import CompiledBuild
from refold.store.builds.dead_letters import excluded_event_ids
from refold.store.log.log_snapshot import log_snapshot


def quick(conn: psycopg.Connection, compiled: CompiledBuild, *, proves: bool = False) -> list[Disagreement]:
    """Return the slices of a build, or of its stream, that differ from the kept checksums.

    Of the log it reads only the slices that are not sealed yet.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiled: the build's SQL.
        proves: whether to record a proof if none differs.

    Raises:
        BuildError: the build was replaced, or switched to another stream.
    """
    with snapshot(conn):
        build = as_kept(conn, compiled)
        found = [
            *disagreements(conn, compiled.build_id, compiled.statements.kept),
            *reads.disagreements(conn, compiled, build, parameters_of(conn, build)),
        ]
        if proves and not found:
            record_quick(conn, compiled, build)
        return found


def record_quick(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    build: Build,
    *,
    began_at: datetime | None = None,
    differed: int = 0,
) -> None:
    """Record the proof of a quick audit, if it could compare all events that the build has read.

    Args:
        conn: the snapshot in which the last slices were compared, or the transaction that has healed them.
        compiled: the build's SQL.
        build: the build, as this transaction shows it.
        began_at: an instant before the oldest snapshot of the audit; None: the start of this transaction.
        differed: slices that differed and are healed.
    """
    if reads.compares_everything(conn, compiled, parameters_of(conn, build)):
        proofs.add(conn, build, "quick", began_at=began_at, differed=differed)


def as_kept(conn: psycopg.Connection, compiled: CompiledBuild) -> Build:
    """Return a build as the snapshot shows it, if it still reads the stream of its SQL.

    Raises:
        BuildError: the build was replaced, or switched to another stream.
    """
    build = by_id(conn, compiled.build_id)
    if build.state not in ("building", "live"):
        # Its stream may be dropped at any time.
        raise BuildError(f"{build.table_name} was replaced just now; run the audit again")
    if build.upstream_id != compiled.upstream_id:
        # With the new cursor and the old stream, rows that the old stream lacks would look like drift.
        raise BuildError(f"{build.table_name} was switched to another stream just now; run the audit again")
    if build.based != compiled.based:
        raise BuildError(f"events of {build.table_name} have left the log just now; run the audit again")
    if build.retained != compiled.retained:
        raise BuildError(f"slices of {build.table_name} are not kept any more since just now; run the audit again")
    return build


def audit(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    since: datetime | None = None,
    *,
    keep: bool = False,
    ranges: Sequence[Range] = EVERY_SLICE,
) -> AuditResult:
    """Compare a build with its query and its rows with their checksums; return the slices that differ.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiled: the build's SQL.
        since: compare only keys of events since then, and no checksums.
        keep: return a report of the differences too, for a caller that does not heal.
        ranges: the slices to compare.

    Raises:
        BuildError: the build was replaced, or switched to another stream, since its SQL was made.
    """
    relations = compiled.statements.relations
    suspects: set[int] = set()
    report = ReconcileReport()
    with snapshot(conn):
        build = as_kept(conn, compiled)
        parameters = parameters_of(conn, build, since)
        for part in _parts(conn, compiled, parameters, since, ranges):
            for relation in relations:
                scope = WHOLE if part == EVERY_SLICE else within(relation, part)
                if compiled.transform is not None:
                    recompute(conn, compiled, parameters, scope.stream, since=since is not None)
                    scope = Scope(EVERYTHING, scope.table)
                    if since is not None:
                        scope = both(scope, Scope(EVERYTHING, AMONG_THEM))
                elif since is not None:
                    scope = both(scope, since_scope(compiled.plan, relation, compiled.stream))
                if compare(conn, relation, scope, parameters):
                    suspects |= slices(conn)
                    if keep:
                        report.add(differences(conn, build, relation, healed=False))
        if since is None:
            wrong = disagreements(conn, compiled.build_id, compiled.statements.kept, ranges)
            if keep:
                # If the rows are right, the checksum is wrong.
                report.add_checksums(compiled, build.projection, (one for one in wrong if one.slice not in suspects))
            suspects |= {one.slice for one in wrong}
    return AuditResult(suspects, report)


def parts(compiled: CompiledBuild, numbers: set[int]) -> list[Sequence[Range]]:
    """Divide slices into portions to evaluate.

    If an index finds the events of a slice, each run of adjacent slices is a portion: a wider one would also read the
    events between. Otherwise all slices are a portion, since each portion reads the whole stream. A transform holds a
    portion in memory, so its portion is a single slice.
    """
    if compiled.transform is not None:
        return [((number, number),) for number in sorted(numbers)]
    if compiled.statements.relations[0].slicing.indexed:
        return [(run,) for run in runs(numbers)]
    return [runs(numbers)] if numbers else []


def _parts(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    parameters: Mapping[str, str],
    since: datetime | None,
    ranges: Sequence[Range],
) -> list[Sequence[Range]]:
    if compiled.transform is None or since is None:
        return [ranges]
    rows = conn.execute(
        f"SELECT DISTINCT {compiled.statements.relations[0].slicing.event} FROM {compiled.stream.table}"
        f" WHERE {compiled.stream.applied()} AND ts >= %(since)s::timestamptz".encode(),
        parameters,
    ).fetchall()
    return parts(compiled, {int(number) for (number,) in rows})


@contextmanager
def snapshot(conn: psycopg.Connection) -> Iterator[None]:
    """Open a transaction that sees the database as of one instant."""
    with log_snapshot(conn, read_only=False):
        plan_freely(conn)
        yield


def parameters_of(conn: psycopg.Connection, build: Build, since: datetime | None = None) -> dict[str, str]:
    """Return the SQL parameters of an audit: the build's cursor, its dead letters, and `since`.

    Args:
        conn: the snapshot in which the build was read, or a transaction that holds its lock.
        build: the build.
        since: earliest time of the events to audit, if any.
    """
    parameters = cursor_parameters(build.cursor, excluded_event_ids(conn, build))
    if since is not None:
        parameters["since"] = since.isoformat()
    return parameters
