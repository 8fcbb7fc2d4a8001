"""The switch (cut-over): the builds of a deployment replace their predecessors, all in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg

from refold.engine.publish.analyst_views import make_views
from refold.engine.publish.canary_views import superseded
from refold.engine.publish.views import Dependant, drop_view, once_let_go, switch_view
from refold.engine.scrub.rolling import scrubbed_since
from refold.engine.verify.trial import refuse_unkeepable
from refold.errors import BuildError
from refold.model.projection.view_file import ViewFile, view_file
from refold.postgres.failpoints import failpoint
from refold.store.builds import checksums, proofs, state
from refold.store.builds.build import Build, builds_of, by_id, by_ids, live_builds, lock, readers_of
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import settle
from refold.store.builds.first_load import tables_of
from refold.store.builds.follow import Behind, follow
from refold.store.builds.graph import by_depth
from refold.store.builds.suspects import suspects
from refold.store.log.damage import leave, look_again
from refold.store.log.integrity import LogDamaged

Catch = Callable[[psycopg.Connection, Build, Build], bool]
"""catch_up(conn, fresh, current): applies pages to `fresh` until it covers `current`, inside the caller's
transaction; returns False if a few pages are not enough."""


class NotYet(Exception):
    """A new build is too far behind for a switch in one transaction, and must catch up first."""


class Unproved(NotYet):
    """The log was damaged while a new build read it and is repaired now, so the build needs an audit first."""


def promote(
    conn: psycopg.Connection,
    deployment: int,
    compiler: Compiler,
    catch_up: Catch,
    *,
    recreate_foreign: bool = False,
    seconds: float = 30.0,
) -> list[Build]:
    """Make the builds of a deployment live, retire their predecessors, and switch views and readers.

    No applied event is lost: under the locks of both, the new build first catches up with all events that the old one
    has applied. Readers continue from their own cursors.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        deployment: number of the deployment.
        compiler: makes the SQL of the builds.
        catch_up: applies pages inside the transaction.
        recreate_foreign: see `switch_view`.
        seconds: longest time to try for the locks on the views.

    Returns:
        The builds that went live, upstream first.

    Raises:
        NotYet: a build is not loaded, or too far behind.
        Unproved: the log was damaged while a new build read it.
        BuildError: views outside `metrics` depend on changed columns, or sessions still hold the views after `seconds`.
        ViewError: a view that goes live with the builds cannot be created.
        LogDamaged: the log is damaged, and a build made from it would replace a correct one.
    """
    _refuse_damage(conn, deployment, seconds)
    return once_let_go(
        conn,
        seconds,
        lambda: _switch(conn, deployment, compiler, catch_up, recreate_foreign),
        held=f"a session has held the views or builds for longer than {seconds:g} s",
        then="`refold promote`",
    )


def _refuse_damage(conn: psycopg.Connection, deployment: int, seconds: float) -> None:
    """Refuse to replace a build unless the log was verified after the new build began to read it.

    A build without a predecessor needs no check, because it replaces no correct table. A rollback needs none either:
    it returns to a table that exists.

    Raises:
        LogDamaged: the log is damaged.
        NotYet: the verification needs longer than `seconds`.
        Unproved: the log was damaged meanwhile.
    """
    row = conn.execute(
        """
        SELECT min(b.created_at), bool_and(b.loaded), array_agg(b.build_id), array_agg(b.table_name)
        FROM refold.builds AS b
        JOIN refold.deployments AS d USING (deployment)
        JOIN refold.builds AS old ON old.projection = b.projection AND old.state = 'live'
        WHERE d.deployment = %s AND d.kind <> 'rollback' AND b.state = 'building'
        """,
        (deployment,),
    ).fetchone()
    if row is None or row[0] is None or not row[1]:
        return
    try:
        scrubbed = scrubbed_since(conn, row[0], by="promote", seconds=seconds)
    except LogDamaged as error:
        with conn.transaction():
            leave(conn, error.damage, error.slices, by="promote", not_promoted=row[3])
        raise
    if not scrubbed:
        raise NotYet
    # The log may have been damaged before that check.
    look_again(conn, by="promote")
    if unproved := [build for build in suspects(conn) if build.build_id in row[2]]:
        raise Unproved(f"the log was damaged while {unproved[0].table_name} read it; a worker audits that build first")


def _switch(
    conn: psycopg.Connection, deployment: int, compiler: Compiler, catch_up: Catch, recreate_foreign: bool
) -> list[Build]:
    candidates = builds_of(conn, deployment, state="building")
    if any(not build.loaded for build in candidates):
        raise NotYet
    old = {build.projection: build for build in live_builds(conn)}
    replaced = {build.projection: old[build.projection] for build in candidates if build.projection in old}
    taken = {build.build_id for build in replaced.values()}
    readers = _readers(conn, taken)
    # Upstream before downstream, like all code that locks several builds: that order prevents deadlocks.
    for build in by_depth(conn, (*candidates, *replaced.values(), *readers)):
        locked = lock(conn, build.build_id, wait=True)
        if locked is None or locked.state != build.state:
            # A worker has changed or locked the build since it was read.
            raise NotYet
        if build.build_id in taken:
            # Wait for a deploy that is creating a reader of the build (see `refold.engine.deployment.create`).
            conn.execute("SELECT FROM refold.builds WHERE build_id = %s FOR UPDATE", (build.build_id,))
    # Look for readers that were created before the locks were held: they would stay with a retired build.
    if {b.build_id for b in _readers(conn, taken)} != {b.build_id for b in readers} or not _fed(conn, candidates):
        raise NotYet
    for fresh in by_depth(conn, candidates):
        current = replaced.get(fresh.projection)
        if current is not None and not catch_up(conn, by_id(conn, fresh.build_id), by_id(conn, current.build_id)):
            raise NotYet
    dropped: list[Dependant] = []
    for build in replaced.values():
        state.retire(conn, build, by=deployment)
        settle(conn, build)
    for build in candidates:
        state.go_live(conn, build)
        compiled = compiler.of(conn, build)
        refuse_unkeepable(conn, compiled.statements, audited=compiled.transform is None)
        superseded(conn, build.projection, build)
        switch_view(conn, build.projection, compiled, recreate_foreign=recreate_foreign, dropped=dropped)
    fresh_of = {build.projection: build for build in candidates}
    for reader in readers:
        upstream = next(b for b in replaced.values() if b.build_id == reader.upstream_id)
        successor = fresh_of[upstream.projection]
        if successor.fingerprint != upstream.fingerprint:
            # The reader has no build in this deployment, and cannot follow a changed upstream.
            _retire_reader(conn, reader, deployment)
            continue
        try:
            follow(conn, reader, successor)
        except Behind as error:
            raise NotYet from error
    files, back = _views(conn, deployment)
    make_views(conn, () if back else files, dropped, earlier=files if back else (), recreate_foreign=recreate_foreign)
    if not conn.execute(
        "UPDATE refold.deployments SET promoted_at = now() WHERE deployment = %s AND given_up_at IS NULL", (deployment,)
    ).rowcount:
        raise BuildError(
            "another command worked on the same builds and failed",
            remedy="Read its message for the reason, then run `refold deploy` to continue.",
        )
    failpoint("views")
    return candidates


def _views(conn: psycopg.Connection, deployment: int) -> tuple[list[ViewFile], bool]:
    """Return the views that go live with a deployment, and whether it is a rollback."""
    row = conn.execute("SELECT views, kind FROM refold.deployments WHERE deployment = %s", (deployment,)).fetchone()
    texts, kind = ({}, "") if row is None else (dict(row[0] or {}), row[1])
    files = [view_file(name, text, Path("sql/views") / f"{name}.sql") for name, text in sorted(texts.items())]
    return files, kind == "rollback"


def _readers(conn: psycopg.Connection, taken: set[int]) -> list[Build]:
    """Return the kept builds that read a replaced build and are not replaced themselves."""
    return [build for build in readers_of(conn, *taken) if build.build_id not in taken]


def _fed(conn: psycopg.Connection, candidates: list[Build]) -> bool:
    """Return True if every stream that the candidates read is kept up to date.

    Raises:
        BuildError: a stream is retired or dropped.
    """
    for build in by_ids(conn, [b.build_id for b in candidates]):
        if build.upstream_id is None:
            continue
        upstream = by_id(conn, build.upstream_id)
        if upstream.state not in ("building", "live"):
            raise BuildError(
                f"{build.table_name} reads {upstream.table_name}, which is no longer kept up to date",
                remedy=f"Build it again: `refold deploy`, or `refold rebuild {build.projection}`.",
            )
    return True


def _retire_reader(conn: psycopg.Connection, reader: Build, deployment: int) -> None:
    """Retire a build and all its readers, which get no more rows."""
    state.retire(conn, reader, by=deployment)
    settle(conn, reader)
    if reader.state == "live":
        superseded(conn, reader.projection, None)
        try:
            drop_view(conn, reader.projection)
        except psycopg.errors.DependentObjectsStillExist as error:
            raise BuildError(
                f"metrics.{reader.projection} cannot be removed with its upstream: {error.diag.message_detail}",
                remedy="Drop the views that depend on it first.",
            ) from error
    for below in readers_of(conn, reader.build_id):
        if lock(conn, below.build_id, wait=True) is None:
            raise NotYet
        _retire_reader(conn, below, deployment)


def drop_superseded(conn: psycopg.Connection, *, keep: int = 1) -> list[str]:
    """Drop the tables of retired builds, except the latest `keep` of each projection, and return their names.

    The kept builds serve rollbacks. After `refold drop` the latest build is dropped too, after `build_days` days of
    `refold.settings`.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        keep: retired builds to keep for each projection.
    """
    dropped: list[str] = []
    rows = conn.execute(
        """
        SELECT build_id, table_name FROM (
            SELECT build_id, table_name, row_number() OVER (
                -- A rollback cannot return to a build that was never live.
                PARTITION BY projection ORDER BY promoted_at IS NULL, retired_at DESC, number DESC) AS age,
                retired_at < now() - make_interval(days => s.build_days) AND EXISTS (
                    SELECT FROM refold.deployments AS d WHERE d.deployment = b.retired_by AND d.kind = 'drop') AS ended
            FROM refold.builds AS b CROSS JOIN refold.settings AS s WHERE b.state = 'retired'
              -- A view of a canary that has ended may still name it.
              AND NOT EXISTS (SELECT FROM refold.canary_builds AS c WHERE c.build_id = b.build_id AND c.shown)
        ) AS retired WHERE age > %s OR ended
        """,
        (keep,),
    ).fetchall()
    for build_id, table in rows:
        if drop_retired(conn, build_id, table):
            dropped.append(str(table))
    return dropped


def drop_retired(conn: psycopg.Connection, build_id: int, table: str) -> bool:
    """Drop the tables of a retired build; return False if it is not retired any more.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        build_id: the build.
        table: its table.
    """
    with conn.transaction():
        conn.execute("SET LOCAL lock_timeout = '200ms'")
        # Check under its lock: a rollback may have revived the build meanwhile.
        if not state.drop(conn, build_id):
            return False
        checksums.forget(conn, build_id)
        proofs.forget(conn, build_id)
        for marks in ("audits", "quick_audits", "bases"):
            conn.execute(
                psycopg.sql.SQL("DELETE FROM {} WHERE build_id = %s").format(psycopg.sql.Identifier("refold", marks)),
                (build_id,),
            )
        for name in tables_of(conn, table):
            conn.execute(psycopg.sql.SQL("DROP TABLE {}").format(psycopg.sql.Identifier("refold_builds", name)))
    return True
