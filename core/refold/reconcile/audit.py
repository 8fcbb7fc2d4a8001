"""The audit: compare a build with its query over the stream, as of the build's cursor.

One REPEATABLE READ snapshot shows cursor, table and stream at one instant, so what is not applied yet is lag
and never drift, also under load. Nothing is locked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg

from refold.builds.build import Build, by_id
from refold.builds.dead_letters import left_out
from refold.builds.upkeeper import Upkeeper
from refold.errors import BuildError
from refold.reconcile import recomputed
from refold.reconcile.differences import compare, findings, hashes
from refold.reconcile.finding import Finding, Kind, Report
from refold.reconcile.scope import WHOLE
from refold.reconcile.scope import since as since_scope
from refold.worker.page import cursor_parameters


@dataclass(frozen=True, slots=True)
class Suspects:
    """Keys that differ: hashes of them, or for a transform the ranges of coordinates they lie in."""

    hashes: tuple[int, ...] = ()
    ranges: tuple[recomputed.Range, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.hashes or self.ranges)


def audit(
    conn: psycopg.Connection, keeper: Upkeeper, since: datetime | None, report: Report, *, keep: bool
) -> Suspects:
    """Compares one build with its query.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        keeper: the build's SQL.
        since: only what events since then belong to.
        report: takes the findings when `keep` is set; healing reports its own.
        keep: nothing will be healed, so report what the audit saw.
    """
    suspects: set[int] = set()
    with snapshot(conn):
        build = by_id(conn, keeper.build_id)
        if build.upstream_id != keeper.upstream_id:
            # With the new cursor and the old stream, what that never got would look like drift.
            raise BuildError(f"{build.table_name} was switched to another stream just now; reconcile again")
        parameters = parameters_of(conn, build, since)
        if keeper.transform is not None:
            ranges = []
            for part in recomputed.ranges(conn, keeper, parameters, since is not None):
                if compare(
                    conn,
                    keeper.statements.relations[0],
                    part.scope(since is not None),
                    parameters | part.parameters(),
                ):
                    ranges.append(part)
                    if keep:
                        _report(conn, build, keeper, 0, report)
            return Suspects(ranges=tuple(ranges))
        for at, relation in enumerate(keeper.statements.relations):
            scope = WHOLE if since is None else since_scope(keeper.plan, relation, keeper.stream)
            if compare(conn, relation, scope, parameters):
                suspects.update(hashes(conn))
                if keep:
                    _report(conn, build, keeper, at, report)
    return Suspects(hashes=tuple(suspects))


@contextmanager
def snapshot(conn: psycopg.Connection) -> Iterator[None]:
    """A transaction that sees the database as of one instant."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        conn.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        yield


def parameters_of(conn: psycopg.Connection, build: Build, since: datetime | None = None) -> dict[str, str]:
    """A build's cursor, what it leaves out, and the instant since which it is audited.

    Args:
        conn: the snapshot in which the build was read, or a transaction that holds its lock.
        build: the build.
        since: only what events since then belong to.
    """
    parameters = cursor_parameters(build.cursor, left_out(conn, build))
    if since is not None:
        parameters["since"] = since.isoformat()
    return parameters


def _report(conn: psycopg.Connection, build: Build, keeper: Upkeeper, at: int, report: Report) -> None:
    relation = keeper.statements.relations[at]
    shown, counts = findings(conn, build, relation, healed=False)
    add(report, build, relation.table, shown, counts)


def add(report: Report, build: Build, table: str, shown: Sequence[Finding], counts: Mapping[Kind, int]) -> None:
    """Adds a table's findings to a report."""
    report.findings.extend(shown)
    for kind, number in counts.items():
        report.counts[build.projection, table.split(".", 1)[1].strip('"'), kind] += number
