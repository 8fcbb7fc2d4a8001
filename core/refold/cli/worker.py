"""`refold worker`: processes that keep the metrics up to date."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Self, TypeVar

import psycopg
import typer

from refold.cli.app import TRUST, app
from refold.cli.bars import progress
from refold.cli.output import line
from refold.cli.session import DatabaseUrl, Projections, database, folder
from refold.errors import BuildError, OnStandby
from refold.postgres.connect import connect
from refold.postgres.retry import away, retrying
from refold.prose import counted
from refold.service.worker.listener import POLL
from refold.store.schema.installed import check

log = logging.getLogger("refold.worker")

T = TypeVar("T")


@app.command(rich_help_panel=TRUST)
def worker(
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, max=256, help="Number of processes.")] = 1,
    drain: Annotated[bool, typer.Option("--drain", help="Apply all events in the log, then exit.")] = False,
    poll: Annotated[
        float,
        typer.Option(
            "--poll", min=0.01, max=3600, metavar="SECONDS", help="Polling interval while no notification arrives."
        ),
    ] = POLL,
    no_deliver: Annotated[bool, typer.Option("--no-deliver", help="Leave sinks to `refold deliver`.")] = False,
    projections: Projections = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Keep the metrics up to date: apply new events, page by page, exactly once.

    Any number of workers may run on any number of machines: they share the work, and killing one loses nothing.
    SIGTERM or Ctrl-C stops a worker after the current page; a second signal stops it immediately.
    A worker runs Python transforms from its --projections folder.

    \b
    Examples:
      refold worker
      refold worker --processes 4
      refold worker --drain             in a nightly job, or before a test reads
    """
    from refold.service.duties.registry import DUTIES
    from refold.service.worker.pool import LOGGERS, Orders, run

    url = database(database_url)
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    orders = Orders(url, folder(projections, quiet=True), poll, drain, DUTIES, not no_deliver)
    if not drain:
        log.info("worker started%s; Ctrl-C stops it", f" with {processes} processes" if processes > 1 else "")
        run(orders, processes)
        log.info("stopped")
        return
    started = time.monotonic()
    with _Figures(url) as figures:
        figures.ask(check)
        before = figures.ask(_applied)
        then = figures.ask(_by_build)
        with progress() as bars:
            task = bars.add_task("applying", total=figures.ask(_waiting) or None, note="")

            def tick() -> None:
                # The work goes on without its picture.
                with suppress(psycopg.Error, OnStandby):
                    bars.update(task, completed=figures.ask(_applied) - before)

            run(orders, processes, tick=tick)
        for attempt in retrying(retried=away):
            with attempt:
                now = figures.ask(_by_build)
                failures = figures.ask(_failures)
        line(f"drained: {_drained(then, now)} in {time.monotonic() - started:.1f} s")
        _refuse_failed(failures)


class _Figures:
    """A separate connection that reads the numbers for the progress bar, and reconnects when it breaks.

    Args:
        url: a libpq URL.

    Raises:
        OnStandby: the server is a standby.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._conn = self._connected()

    def _connected(self) -> psycopg.Connection:
        return connect(self._url, "refold_worker", autocommit=True, application_name="refold worker figures")

    def ask(self, what: Callable[[psycopg.Connection], T]) -> T:
        """Read one number.

        Raises:
            psycopg.Error: the connection broke or cannot be opened; the next call opens another.
        """
        if self._conn.closed:
            self._conn = self._connected()
        return what(self._conn)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._conn.close()


@dataclass(frozen=True, slots=True)
class _Applied:
    """The events that a build has applied.

    Args:
        events: their number.
        from_log: whether they are events of the log, and not rows of another build.
    """

    events: int
    from_log: bool


def _by_build(conn: psycopg.Connection) -> dict[int, _Applied]:
    """Return what each build has applied, by its id."""
    rows = conn.execute(
        "SELECT build_id, events_applied, upstream_id IS NULL FROM refold.builds_now"
        " WHERE state IN ('building', 'live')"
    ).fetchall()
    return {build: _Applied(events, from_log) for build, events, from_log in rows}


def _drained(before: Mapping[int, _Applied], after: Mapping[int, _Applied]) -> str:
    """Return in words how many events of the log were applied, each counted once, and to how many metrics. Pure."""
    moved = {build: now.events - before[build].events for build, now in after.items() if build in before}
    # Of two builds, the one that was further behind has applied what the other has, too.
    read = [number for build, number in moved.items() if after[build].from_log and number > 0]
    events = max(read or moved.values(), default=0)
    metrics = sum(number > 0 for number in moved.values())
    return f"{counted(events, 'event')} applied" + (f" to {counted(metrics, 'metric')}" if metrics else "")


def _applied(conn: psycopg.Connection) -> int:
    """Return the number of events that all builds have applied."""
    row = conn.execute("SELECT coalesce(sum(events_applied), 0)::bigint FROM refold.builds_now").fetchone()
    return 0 if row is None else int(row[0])


def _waiting(conn: psycopg.Connection) -> int:
    """Return the number of events that builds have yet to apply, without builds in their first load."""
    row = conn.execute(
        """
        SELECT coalesce(sum(u.events), 0)::bigint
        FROM refold.builds_now AS b
        CROSS JOIN LATERAL refold.unread(b.done, b.target, b.progress_txid, b.progress_position) AS u
        WHERE b.state IN ('building', 'live') AND b.loaded
        """
    ).fetchone()
    return 0 if row is None else int(row[0])


def _failures(conn: psycopg.Connection) -> list[tuple[str, str]]:
    """Return the tables that could not be updated, with the errors."""
    return conn.execute(
        "SELECT table_name, error FROM refold.builds"
        " WHERE error IS NOT NULL AND state IN ('building', 'live') ORDER BY build_id"
    ).fetchall()


def _refuse_failed(failures: Sequence[tuple[str, str]]) -> None:
    """Raise an error if a build failed: a script must not take a partial drain for success."""
    if failures:
        told = "; ".join(f"{table}: {error}" for table, error in failures)
        raise BuildError(
            f"some events could not be applied: {told}",
            remedy="Correct the file and run `refold deploy`, or give this worker the deployed file (--projections). "
            "The events stay in the log.",
        )
