"""`refold reconcile`: audit in topological order, heal what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import psycopg

from refold.builds.build import Build, by_id, find
from refold.builds.dead_letters import described
from refold.builds.lookup import known
from refold.builds.upkeeper import Upkeepers
from refold.errors import BuildError
from refold.projections.plan import LOG_COLUMNS
from refold.reconcile.audit import audit
from refold.reconcile.finding import Report
from refold.reconcile.heal import heal
from refold.worker.catch_up import by_depth
from refold.worker.culprits import of_an_event


def reconcile(
    conn: psycopg.Connection,
    projections: Path | None,
    names: Sequence[str] = (),
    *,
    since: datetime | None = None,
    dry_run: bool = False,
    report: Callable[[str, int], None] = lambda name, found: None,
) -> Report:
    """Compares live projections with their query over the log, as of their cursors, and heals what differs.

    A reader is compared with its stream, so the stream comes first: a right reader of a damaged stream looks as if
    it had drifted, and "healing" it would spread the damage.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        projections: the folder of transforms; they are recomputed by their functions.
        names: which projections, and with them the streams that they read; all when empty.
        since: only what events since then belong to.
        dry_run: report, and change nothing.
        report: told of each projection, with the number of keys that differed.

    Raises:
        BuildError: a name is not live.
    """
    upkeepers = Upkeepers(projections)
    live = {build.projection: build for build in find(conn, "b.state = 'live'")}
    chosen = [known(name, live) for name in names] if names else list(live.values())
    result = Report()
    unsure: dict[int | None, str] = {}
    for build in by_depth(conn, _with_streams(conn, chosen)):
        before = result.drift
        try:
            if build.upstream_id in unsure:
                raise BuildError(unsure[build.upstream_id])
            _one(conn, upkeepers, build, since, dry_run, result)
        except Exception as error:
            # One whose query or function fails now keeps nobody else from being audited.
            if not (isinstance(error, BuildError) or of_an_event(error)):
                raise
            result.skipped.append((build.projection, str(error) if isinstance(error, BuildError) else described(error)))
            unsure[build.build_id] = f"it reads {build.projection}, which was not audited"
            continue
        if dry_run and result.drift > before:
            unsure[build.build_id] = f"it reads {build.projection}, which has drifted and must be healed first"
        result.audited.append(build.projection)
        report(build.projection, result.drift - before)
    return result


def _with_streams(conn: psycopg.Connection, builds: Sequence[Build]) -> list[Build]:
    """The builds and everything above them."""
    found = {build.build_id: build for build in builds}
    for build in builds:
        found |= {stream.build_id: stream for stream in _streams(conn, build)}
    return list(found.values())


def _streams(conn: psycopg.Connection, build: Build) -> list[Build]:
    """The builds between the log and this one, from the log down."""
    above: list[Build] = []
    upstream_id = build.upstream_id
    while upstream_id is not None:
        above.insert(0, by_id(conn, upstream_id))
        upstream_id = above[0].upstream_id
    return above


def _one(
    conn: psycopg.Connection,
    upkeepers: Upkeepers,
    build: Build,
    since: datetime | None,
    dry_run: bool,
    result: Report,
) -> None:
    # A promote may have pointed it at another stream while the others were audited.
    build = by_id(conn, build.build_id)
    keeper = upkeepers.of(conn, build)
    if since is not None and not _has_ts(conn, build):
        raise BuildError(f"{keeper.plan.stream} has no column ts, so there is no `since`")
    if since is not None and build.upstream_id is not None and audit(conn, keeper, since, Report(), keep=False):
        # Its keys reach back to before `since`, and so may damage in its streams, which have been audited only
        # from there on.
        for stream in _streams(conn, build):
            told = Report() if dry_run else result
            _one(conn, upkeepers, stream, None, dry_run, told)
            if dry_run and told.drift:
                raise BuildError(f"it reads {stream.projection}, which has drifted and must be healed first")
    suspects = audit(conn, keeper, since, result, keep=dry_run)
    if suspects and not dry_run:
        heal(conn, upkeepers, build, suspects, since, result)


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
