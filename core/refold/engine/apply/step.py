"""Bringing builds up to date: single pages and steps of first loads, and the switch when a deployment is ready."""

from __future__ import annotations

import logging
import time

import psycopg

from refold import tracing
from refold.engine.apply.load import BUCKET, STEP, TRANSFORM_STEP, Loaded, Thaw, load_step
from refold.engine.apply.page import Applied, apply_next_page, apply_page, write_isolating_failures
from refold.engine.archive.sources import Sources
from refold.engine.publish.switch import NotYet, Unproved, promote
from refold.engine.verify.trial import Unkeepable
from refold.errors import BuildError
from refold.model.stream.cursor import Cursor, next_read
from refold.postgres.sqlstate import caused_by_event, transient
from refold.store.builds.build import Build, by_id
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.log.integrity import LogDamaged

log = logging.getLogger("refold.worker")

FRESH = 10_000
"""Rows of the stream in a page of a build that is up to date."""
BEHIND = 200_000
"""Rows in a page of a build that is far behind."""
SWITCH_PAGES = 50
"""Most pages that a switch applies under its locks."""
SWITCH_REST = 4.0
"""Seconds of rest for each second of a refused attempt to switch. Each attempt verifies the log first, which takes long
while an open transaction keeps much of the log unsealed."""
FORGIVE = 50
"""Pages after a cancelled one until pages may have twice the size again."""


class PageSize:
    """The size of the next page: doubled after each full page, and small again after a page that was not full.

    After a page that its bytes cut, the next one has twice the rows of that page.

    Args:
        ceiling: most rows of a page. It is lower for transforms, which hold a page in memory, and for recomputation,
            which holds its keys in locks.
    """

    def __init__(self, ceiling: int = BEHIND) -> None:
        self._highest = self._ceiling = ceiling
        self._since = 0
        self.rows = min(FRESH, ceiling)

    def learn(self, applied: Applied) -> None:
        """Adjust the size to the outcome of a page."""
        self._since += 1
        if self._since >= FORGIVE and self._ceiling < self._highest:
            self._since = 0
            self._ceiling = min(self._ceiling * 2, self._highest)
        # A full page with fewer rows than asked for was cut by its bytes.
        asked = min(self.rows, applied.events) if applied.full else 0
        self.rows = min(max(asked * 2, 1), self._ceiling) if applied.full else min(FRESH, self._ceiling)

    def cancelled(self) -> bool:
        """Halve the size after a page was cancelled; return whether a smaller page can be tried."""
        if self.rows == 1:
            return False
        self._ceiling = self.rows = self.rows // 2
        self._since = 0
        return True


def ceiling(upkeep: str) -> int:
    """Return the most rows of a page for a kind of upkeep."""
    return {"transform": 20_000, "funnel": 50_000, "recompute": 50_000}.get(upkeep, BEHIND)


class StepRunner:
    """Runs single steps of builds over one connection.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of the builds.
    """

    def __init__(self, conn: psycopg.Connection, compiler: Compiler) -> None:
        self.conn = conn
        self.compiler = compiler
        self._thaw = Thaw(compiler, Sources())
        self._sizes: dict[int, PageSize] = {}
        self._parts: dict[int, int] = {}
        self._again: dict[int, float] = {}

    def step(self, build: Build) -> Applied | Loaded | None:
        """Apply a page of a build, or do a step of its first load; return None if another worker holds it.

        Raises:
            BuildError: this process lacks the build's transform, or too many events fail.
        """
        compiled = self.compiler.of(self.conn, build)
        if not build.loaded:
            return self._load(build, compiled)
        size = self._sizes.setdefault(build.build_id, PageSize(ceiling(build.upkeep)))
        try:
            applied = apply_next_page(self.conn, compiled, size.rows)
        except psycopg.errors.QueryCanceled:
            # A setting or a proxy limits the time of a statement: a smaller page may still pass.
            log.warning("%s: a page of %d rows was cancelled; trying half as many", build.table_name, size.rows)
            if not size.cancelled():
                raise
            return Applied(0, full=True)
        if applied is not None:
            size.learn(applied)
        return applied

    def _load(self, build: Build, compiled: CompiledBuild) -> Loaded | None:
        parts = self._parts.get(build.build_id, 1)
        step = TRANSFORM_STEP if compiled.transform else STEP
        try:
            with tracing.work(
                "load", build.projection, keep=False, build=build.build_id, upkeep=build.upkeep, step=build.load_step
            ) as span:
                loaded = load_step(
                    self.conn,
                    compiled,
                    step=max(1, step // parts),
                    bucket=max(1, BUCKET // parts),
                    thaw=self._thaw,
                )
                # None: another worker does it.
                span.keep = loaded is not None
                if loaded is not None:
                    span.note(events=loaded.events)
                return loaded
        except psycopg.errors.QueryCanceled:
            log.warning("%s: a step of its first load was cancelled; trying half of it", build.table_name)
            if parts >= step:
                raise
            self._parts[build.build_id] = parts * 2
            return Loaded(0, finished=False, total=0)

    def promote_ready(self, *, back_off: bool = False) -> list[Build]:
        """Promote the deployments whose builds have caught up, and return the builds that went live.

        Args:
            back_off: pass over a refused deployment for a while, in proportion to the duration of the attempt.
        """
        rows = self.conn.execute(
            """
            SELECT deployment FROM refold.deployments AS d
            WHERE d.promote AND d.promoted_at IS NULL AND d.given_up_at IS NULL
              AND EXISTS (SELECT FROM refold.builds AS b WHERE b.deployment = d.deployment AND b.state = 'building')
              AND NOT EXISTS (
                  SELECT FROM refold.builds AS b
                  WHERE b.deployment = d.deployment AND b.state = 'building' AND NOT b.loaded)
            ORDER BY deployment
            """
        ).fetchall()
        promoted: list[Build] = []
        for (deployment,) in rows:
            started = time.monotonic()
            if back_off and started < self._again.get(deployment, started):
                continue
            try:
                promoted += promote(self.conn, deployment, self.compiler, self.catch_up, seconds=2.0)
            except (LogDamaged, Unproved, Unkeepable) as error:
                self._refused(deployment, error)
            except (NotYet, BuildError):
                pass
            except Exception as error:
                if transient(error):
                    raise
                # The view, query or function of a build fails: go on with the other deployments.
                self._refused(deployment, error)
            else:
                continue
            ended = time.monotonic()
            self._again[deployment] = ended + SWITCH_REST * (ended - started)
        return promoted

    def _refused(self, deployment: int, error: Exception) -> None:
        """Store on the builds of a deployment why they cannot go live."""
        message = f"cannot go live: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        self.conn.execute(
            "UPDATE refold.builds SET error = %s"
            " WHERE deployment = %s AND state = 'building' AND error IS DISTINCT FROM %s",
            (message, deployment, message),
        )

    def catch_up(self, conn: psycopg.Connection, fresh: Build, current: Build) -> bool:
        """Apply pages to a new build inside the caller's transaction; return whether it covers its predecessor then."""
        compiled = self.compiler.of(conn, fresh)
        for _ in range(SWITCH_PAGES):
            if fresh.cursor.covers(current.cursor):
                return True
            before = fresh.cursor
            try:
                with conn.transaction():
                    apply_page(conn, compiled, fresh, FRESH, known=current.cursor.done)
            except Exception as error:
                if not caused_by_event(error):
                    raise
                apply_page(conn, compiled, fresh, FRESH, known=current.cursor.done, apply=write_isolating_failures)
            fresh = by_id(conn, fresh.build_id)
            if fresh.cursor == before:
                return False
        return False


def has_work(build: Build, upstream: Cursor | None, unread: bool) -> bool:
    """Return whether a page of a build would apply anything. Pure.

    Args:
        build: the build.
        upstream: its upstream's cursor; None for the log.
        unread: for a build on the log, whether the log holds events that its cursor has not applied.
    """
    if not build.loaded or upstream is None:
        return not build.loaded or unread or build.target is not None
    return next_read(build.cursor, upstream) is not None
