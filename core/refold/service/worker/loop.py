"""The main loop of a worker: find builds with work, apply pages, sleep; until a stop or the end of a drain."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from refold.engine.apply.load import Loaded
from refold.engine.apply.page import Applied
from refold.engine.apply.step import StepRunner
from refold.errors import OnStandby
from refold.postgres.connect import connect
from refold.postgres.lock_waits import AGAIN_S, LockWatch, Waits
from refold.postgres.old_snapshots import old
from refold.postgres.proxy import proxied
from refold.postgres.retry import away
from refold.postgres.session import PAGES
from refold.postgres.sqlstate import transient
from refold.postgres.watchdog import Watchdog
from refold.service.duties.registry import ARCHIVE, NOTICES
from refold.service.duties.schedule import Duty
from refold.service.duties.thread import DutyThread
from refold.service.worker.backoff import BuildBackoff
from refold.service.worker.delivery import DeliveryThread
from refold.service.worker.latency import Latencies
from refold.service.worker.listener import POLL, Listener
from refold.service.worker.page_rest import Pacing
from refold.service.worker.pending import builds_with_work
from refold.service.worker.snapshot_rest import Pace
from refold.store import notices
from refold.store.builds.build import EVENT_GRAIN, Build, readers_of, set_error
from refold.store.builds.compiled import Compiler
from refold.store.log.seal import note
from refold.store.schema.installed import check
from refold.store.schema.settings import read_settings

log = logging.getLogger("refold.worker")

NAP = 0.005
"""Seconds between two checks while other workers hold all builds with work."""
FROZEN_AFTER = 60.0
"""Seconds for which a worker's session may be silent, within a page or asleep."""
SEGMENTS_EVERY = 5.0
"""Seconds between two checks of the log's spare segments, of the cluster, and of old snapshots."""


class _Swept(NamedTuple):
    """The result of one round over the builds.

    Args:
        busy: whether the round did any work.
        full: whether more work may be ready now.
        pages: duration of each build's page, seconds.
    """

    busy: bool
    full: bool
    pages: dict[int, float]


class Worker:
    """A worker that keeps all builds of one database up to date, together with any number of other workers.

    Args:
        url: libpq URL; the login role must be allowed to act as refold_worker.
        projections: folder of Python transforms, if any.
        duties: duties to run beside its pages, see `DutyThread`; none while draining.
        deliver: whether to deliver sinks beside its pages; not while draining.
        poll: polling interval while no notification arrives, seconds.
        frozen_after: seconds of silence after which the server ends the worker's session.
        stopped: called between pages; returns whether to stop.
        on_page: called for every page (build, events), for progress.
    """

    def __init__(
        self,
        url: str,
        projections: Path | None,
        *,
        duties: Sequence[Duty] = (),
        deliver: bool = False,
        poll: float = POLL,
        frozen_after: float = FROZEN_AFTER,
        stopped: Callable[[], bool] = lambda: False,
        on_page: Callable[[Build, int], None] = lambda build, events: None,
    ) -> None:
        self._url = url
        self._compiler = Compiler(projections)
        self._poll = poll
        # Else a frozen worker would keep its build from the others for ever, and would count as asleep: every append
        # would notify somebody who cannot hear. A sleeper says something at every poll, and every few seconds.
        asleep = frozen_after + min(poll, SEGMENTS_EVERY)
        self._settings = {
            **PAGES,
            "idle_in_transaction_session_timeout": f"{frozen_after * 1000:.0f}ms",
            "idle_session_timeout": f"{asleep * 1000:.0f}ms",
        }
        self._stopped = stopped
        self._on_page = on_page
        self._backoff = BuildBackoff()
        self._pacing = Pacing()
        # Beyond one connection: a page that waits too long for a lock ends its connection.
        self._waits = Waits()
        self._duty_thread = DutyThread(url, projections, duties, frozen_after=frozen_after, waits=self._waits)
        self._deliveries = DeliveryThread(url, projections) if deliver else None
        self._notices = (
            DutyThread(url, None, NOTICES, frozen_after=frozen_after, name="refold notices") if deliver else None
        )
        self._archive = (
            DutyThread(url, None, ARCHIVE, frozen_after=frozen_after, name="refold archive") if duties else None
        )
        self._latencies = Latencies()
        self._suspects: set[int] = set()
        self._locked_out_at: float | None = None
        self._said: str | None = None

    def run(self, *, drain: bool = False) -> None:
        """Work until stopped; with `drain`, until every committed event is applied.

        Transient errors are retried without limit: whole transactions, over a new connection. A standby in place of
        the primary is transient, because a failover ends.

        Raises:
            refold.errors.DatabaseError: the schema is missing, or the database belongs to another cluster.
        """
        attempts = Retrying(
            retry=retry_if_exception(away),
            wait=wait_random_exponential(multiplier=0.05, max=5.0),
            before_sleep=self._report,
            reraise=True,
        )
        try:
            for attempt in attempts:
                if self._stopped():
                    # Told to stop while the server is away.
                    return
                with attempt:
                    self._run(drain)
        finally:
            if self._deliveries is not None:
                self._deliveries.end()
            if self._notices is not None:
                self._notices.end()
            if self._archive is not None:
                self._archive.end()
            self._duty_thread.end()

    def _run(self, drain: bool) -> None:
        with (
            connect(
                self._url, "refold_worker", autocommit=True, application_name="refold worker", settings=self._settings
            ) as conn,
            Watchdog(conn, self._url),
            LockWatch(conn, log.warning, self._waits),
        ):
            check(conn)
            runner = StepRunner(conn, self._compiler)
            listener = Listener(conn, poll=self._poll)
            if not drain or proxied(conn):
                self._test(conn, listener)
            if not drain:
                # The checks are passed: refold can work here.
                self._duty_thread.begin()
            pace = Pace()
            segments_due = 0.0
            while not self._stopped():
                self._latencies.write(conn)
                if time.monotonic() >= segments_due:
                    # A restore may come while this worker runs. Its pages are refused from then on (see
                    # sql/functions/refuse_foreign_cluster.sql); here it learns why.
                    check(conn)
                    conn.execute("SELECT refold.ensure_segments()")
                    settings = read_settings(conn)
                    pace.held(bool(old(conn, settings.held_snapshot_after)))
                    # By these marks looks find the end of the log. Sealing notes them too, a minute later, and not
                    # where workers drain.
                    note(conn)
                    if self._deliveries is not None and not drain:
                        self._deliveries.look(conn)
                    if self._notices is not None and not drain and notices.routes(conn):
                        self._notices.begin()
                    if self._archive is not None and not drain and settings.archive is not None:
                        self._archive.begin()
                    self._wrote()
                    segments_due = time.monotonic() + SEGMENTS_EVERY
                # Whoever waits for a drain waits for all of it.
                todo = self._backoff.due(builds_with_work(conn)) if drain else self._due(builds_with_work(conn))
                # What cost this worker its connection comes last, or those behind it would never have their turn.
                todo.sort(key=lambda build: build.build_id in self._suspects)
                if todo:
                    listener.mark_awake()
                    started = time.monotonic()
                    swept = self._sweep(runner, todo)
                    if swept.busy:
                        if not swept.full and not drain:
                            rest = pace.rest(swept.pages)
                            time.sleep(max(0.0, started + rest - time.monotonic()))
                        continue
                promoted = runner.promote_ready(back_off=not drain)
                for build in promoted:
                    log.info("%s is live as %s", build.projection, build.table_name)
                if promoted:
                    continue
                if todo:
                    # Others have in hand what is left.
                    time.sleep(NAP)
                elif drain:
                    break
                else:
                    listener.sleep(
                        lambda: bool(self._due(builds_with_work(conn))),
                        self._stopped,
                        at_most=max(0.0, min(segments_due - time.monotonic(), self._pacing.wait())),
                    )
            self._latencies.write(conn, now=True)

    def _sweep(self, runner: StepRunner, todo: list[Build]) -> _Swept:
        """Run one step of each build with work, and of its readers."""
        busy = full = False
        pages: dict[int, float] = {}
        queue = list(todo)
        for build in queue:
            if self._stopped():
                return _Swept(busy=False, full=False, pages={})
            try:
                done = runner.step(build)
            except Exception as error:
                if transient(error):
                    self._suspects.add(build.build_id)
                    raise
                # The build's own SQL or function fails, or its code is not here: the others go on.
                self._failed(runner.conn, build, error)
                continue
            self._suspects.discard(build.build_id)
            mended = self._backoff.worked(build) or build.error is not None
            if done is not None:
                if mended:
                    # The error may be another worker's, who lacks the code.
                    set_error(runner.conn, build, None)
                busy = busy or done.events > 0 or not build.loaded
                full = full or isinstance(done, Loaded) or done.full
                if isinstance(done, Applied):
                    if done.events > 0:
                        pages[build.build_id] = done.seconds
                    self._pacing.took(build.build_id, done.seconds, full=done.full)
                    self._latencies.note(runner.conn, build, done)
                self._on_page(build, done.events)
                if done.events > 0 and build.upkeep in EVENT_GRAIN:
                    # Its readers have work now, and need not wait for the next look.
                    queued = {one.build_id for one in queue}
                    readers = self._due(readers_of(runner.conn, build.build_id))
                    queue += [reader for reader in readers if reader.build_id not in queued]
        return _Swept(busy, full, pages)

    def _due(self, builds: Iterable[Build]) -> list[Build]:
        """Return the builds that are neither in back-off nor resting."""
        return self._pacing.due(self._backoff.due(builds))

    def _failed(self, conn: psycopg.Connection, build: Build, error: Exception) -> None:
        message = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if self._backoff.failed(build, message):
            log.warning("%s: %s", build.table_name, message)
            set_error(conn, build, message)

    def _test(self, conn: psycopg.Connection, listener: Listener) -> None:
        with (
            connect(self._url, autocommit=True, application_name="refold self-test") as other,
            Watchdog(other, self._url),
        ):
            # Through a proxy one may arrive by chance, and the next not.
            if proxied(conn) or not listener.self_test(other):
                log.warning(
                    "no NOTIFY arrives on this connection (a transaction-pooling proxy?); polling every %g s instead",
                    self._poll,
                )

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        said = _waits_for(error)
        if isinstance(error, psycopg.errors.LockNotAvailable):
            # Between two of them other builds have their pages, so this comes again and again.
            now = time.monotonic()
            if self._locked_out_at is None or now - self._locked_out_at >= AGAIN_S:
                self._locked_out_at = now
                log.warning("%s", said)
            return
        # However long a server is away, it is told once.
        if said != self._said:
            self._said = said
            log.warning("%s", said)

    def _wrote(self) -> None:
        """Record a successful write: the server is back."""
        if self._said is not None:
            self._said = None
            log.info("connected again; work continues")


def _waits_for(error: BaseException | None) -> str:
    """Return the log message for a transient error."""
    told = str(error).split("\n")[0]
    if isinstance(error, OnStandby | psycopg.errors.ReadOnlySqlTransaction):
        return f"waiting for a primary: {told}"
    code = error.sqlstate if isinstance(error, psycopg.Error) else None
    return f"retrying after {code or 'a lost connection'}: {told}"
