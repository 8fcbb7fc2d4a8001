"""`refold worker`: keeping the metrics up to date."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import psycopg
import typer

from refold.cli.app import TRUST, app
from refold.cli.output import line, progress
from refold.cli.session import DatabaseUrl, Projections, database, folder
from refold.database import connect
from refold.worker.doorbell import POLL
from refold.worker.pool import Orders, run

log = logging.getLogger("refold.worker")


@app.command(rich_help_panel=TRUST)
def worker(
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, max=256, help="How many.")] = 1,
    drain: Annotated[
        bool, typer.Option("--drain", help="Apply everything there is, then exit, instead of waiting for more.")
    ] = False,
    poll: Annotated[
        float,
        typer.Option("--poll", min=0.01, max=3600, metavar="SECONDS", help="How often to look while nothing rings."),
    ] = POLL,
    projections: Projections = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Keep the metrics up to date: apply new events, page by page, exactly once.

    Any number of workers may run on any number of machines; they share the work by themselves, and one that is
    killed is no harm. SIGTERM or Ctrl-C finishes the page in hand and exits; once more exits at once.
    Python transforms are run from the --projections of the worker.

    \b
    Examples:
      refold worker
      refold worker --processes 4
      refold worker --drain             in a nightly job, or before a test looks
    """
    url = database(database_url)
    orders = Orders(url, folder(projections, quiet=True), poll, drain)
    if not drain:
        log.info("working%s; Ctrl-C stops", f" in {processes} processes" if processes > 1 else "")
        run(orders, processes)
        log.info("stopped")
        return
    started = time.monotonic()
    with _figures(url) as applied:
        before = applied()
        with progress() as bars:
            task = bars.add_task("applying", total=None, note="")
            run(orders, processes, tick=lambda: bars.update(task, completed=applied() - before))
        line(f"drained: {applied() - before:,} events applied in {time.monotonic() - started:.1f} s")


@contextmanager
def _figures(url: str) -> Iterator[Callable[[], int]]:
    """Looks at how many events all builds have applied, over a connection of its own."""
    conn = connect(url, "refold_worker", autocommit=True, application_name="refold worker figures")
    try:
        yield lambda: _applied(conn)
    finally:
        conn.close()


def _applied(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT coalesce(sum(events_applied), 0)::bigint FROM refold.builds").fetchone()
    return 0 if row is None else int(row[0])
