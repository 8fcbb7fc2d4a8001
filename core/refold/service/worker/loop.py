"""A worker process: look, apply, sleep; until it is told to stop or everything is done."""

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
from refold.postgres.old_snapshots import old
from refold.postgres.proxy import proxied
from refold.postgres.retry import away
from refold.postgres.session import PAGES
from refold.postgres.sqlstate import transient
from refold.postgres.watchdog import Watchdog
from refold.service.duties.schedule import Duty
from refold.service.duties.thread import DutyThread
from refold.service.worker.backoff import BuildBackoff
from refold.service.worker.latency import Latencies
from refold.service.worker.listener import POLL, Listener
from refold.service.worker.page_rest import Pacing
from refold.service.worker.pending import builds_with_work
from refold.service.worker.snapshot_rest import Pace
from refold.store.builds.build import EVENT_GRAIN, Build, readers_of, set_error
from refold.store.builds.compiled import Compiler
from refold.store.log.seal import note
from refold.store.schema.installed import check
from refold.store.schema.settings import read_settings

log = logging.getLogger("refold.worker")

NAP = 0.005
"""Seconds between two looks while other workers hold what there is to do."""
FROZEN_AFTER = 60.0
"""Seconds for which a worker may say nothing, in the middle of a page or asleep."""
SEGMENTS_EVERY = 5.0
"""Seconds between two looks at the log's spare segments, at whether cursors still mean what they say, and at old
snapshots."""


class _Swept(NamedTuple):
    """What a round did.

    Args:
        busy: anything at all.
        full: there may be more right now.
        pages: seconds that the page of each build took.
    """

    busy: bool
    full: bool
    pages: dict[int, float]


class Worker:
    """Keeps all builds of one database up to date, together with any number of others like it.

    Args:
        url: a libpq URL; the login role must be allowed to act as refold_worker.
        projections: the folder of Python transforms, if this worker has any.
        duties: what it does beside its pages, see `DutyThread`; nothing of it when it drains.
        poll: seconds between two looks while no notification arrives.
        frozen_after: seconds after which the server takes a worker that says nothing for dead.
        stopped: asked between pages whether to stop.
        on_page: told of every page (build, events), for progress.
    """

    def __init__(
        self,
        url: str,
        projections: Path | None,
        *,
        duties: Sequence[Duty] = (),
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
        self._duty_thread = DutyThread(url, projections, duties, frozen_after=frozen_after)
        self._latencies = Latencies()
        self._suspects: set[int] = set()
        self._said: str | None = None

    def run(self, *, drain: bool = False) -> None:
        """Works until stopped; with `drain`, until nothing is left that was committed by then.

        Errors that a retry can mend are retried for as long as it takes, whole transactions only, with a
        fresh connection. A standby in the place of the primary is one of them: during a failover it is waited out.

        Raises:
            refold.errors.DatabaseError: the schema is missing, or the cluster is another.
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
            self._duty_thread.end()

    def _run(self, drain: bool) -> None:
        with (
            connect(
                self._url, "refold_worker", autocommit=True, application_name="refold worker", settings=self._settings
            ) as conn,
            Watchdog(conn, self._url),
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
                    pace.held(bool(old(conn, read_settings(conn).held_snapshot_after)))
                    # By these marks looks find the end of the log. Sealing notes them too, a minute later, and not
                    # where workers drain.
                    note(conn)
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
        """One step of each build that waits, and of what reads it."""
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
        """The builds that neither failed just now nor rest."""
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
                    "NOTIFY does not arrive on this connection (a transaction-pooling proxy?): polling every %g s",
                    self._poll,
                )

    def _report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        said = _waits_for(error)
        # However long a server is away, it is told once.
        if said != self._said:
            self._said = said
            log.warning("%s", said)

    def _wrote(self) -> None:
        """The database could be written: whatever this worker waited for is there."""
        if self._said is not None:
            self._said = None
            log.info("working again")


def _waits_for(error: BaseException | None) -> str:
    """What becomes of an error that a retry can mend, as the log tells it."""
    told = str(error).split("\n")[0]
    if isinstance(error, OnStandby | psycopg.errors.ReadOnlySqlTransaction):
        return f"waiting for a primary: {told}"
    code = error.sqlstate if isinstance(error, psycopg.Error) else None
    return f"retrying after {code or 'a lost connection'}: {told}"
