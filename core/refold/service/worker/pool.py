"""Workers as operating-system processes: a single worker, or a parent that keeps several alive.

Workers meet at the locks of the builds: one that is frozen or killed holds nothing that the others need.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from refold import tracing
from refold.errors import RefoldError
from refold.postgres.connect import connect
from refold.service.duties.schedule import Duty
from refold.service.processes import REFUSED, TICK, Job, in_child, supervise, told_to_stop
from refold.service.worker.listener import POLL
from refold.service.worker.loop import Worker
from refold.store.builds.build import Build
from refold.store.schema.installed import check
from refold.visible import log_on_stderr

log = logging.getLogger("refold.worker")
LOGGERS = (
    "refold.worker",
    "refold.incidents",
    "refold.sinks",
    "refold.archive",
    "refold.retain",
    "refold.erasures",
)
"""Loggers that a worker writes to: its work, the incidents that it opens and resolves, deliveries, and what it takes
out of the log and the metrics: nothing goes without a line."""

STOPPING = "stopping after the current page"


@dataclass(frozen=True, slots=True)
class Orders:
    """The configuration of a worker process.

    Args:
        url: libpq URL; the login role must be allowed to act as refold_worker.
        projections: folder of Python transforms, if any.
        poll: polling interval while no notification arrives, seconds.
        drain: stop when every committed event is applied.
        duties: duties of the workers; module-level functions, because other processes receive them.
        deliver: whether the workers deliver sinks, too.
    """

    url: str
    projections: Path | None
    poll: float = POLL
    drain: bool = False
    duties: tuple[Duty, ...] = ()
    deliver: bool = False


def run(
    orders: Orders, processes: int = 1, *, tick: Callable[[], None] = lambda: None, log_level: int = logging.INFO
) -> None:
    """Run workers in this process, or in child processes, until a signal or the end of a drain.

    On SIGTERM or SIGINT this returns after the current pages. A second signal stops it immediately; the current pages
    are rolled back, and the next worker applies them again.

    Args:
        orders: configuration of the workers.
        processes: number of processes; 1 works in this process.
        tick: called repeatedly, for progress.
        log_level: log level of the children.

    Raises:
        DatabaseError: the schema is missing, or the database belongs to another cluster.
        BuildError: while draining, workers keep dying.
        KeyboardInterrupt: a second signal arrived.
    """
    with connect(orders.url, "refold_worker", autocommit=True) as conn:
        check(conn)
    if processes == 1:
        _work(orders, tick)
    else:
        supervise(
            [Job(child, (orders, log_level), "worker")] * processes,
            log=log,
            told_text=STOPPING,
            tick=tick,
            may_give_up="all events were applied" if orders.drain else None,
        )


def _work(orders: Orders, tick: Callable[[], None]) -> None:
    with told_to_stop(log, STOPPING) as stopped:
        due = 0.0

        def on_page(build: Build, events: int) -> None:
            nonlocal due
            if time.monotonic() >= due:
                tick()
                due = time.monotonic() + TICK

        worker = Worker(
            orders.url,
            orders.projections,
            duties=orders.duties,
            deliver=orders.deliver,
            poll=orders.poll,
            stopped=stopped,
            on_page=on_page,
        )
        worker.run(drain=orders.drain)


def child(orders: Orders, log_level: int, parent: int) -> None:
    """Run a worker process of the pool; it ends with the parent, even if the parent was killed."""
    told = in_child()
    log_on_stderr()
    for name in LOGGERS:
        logging.getLogger(name).setLevel(log_level)
    worker = Worker(
        orders.url,
        orders.projections,
        duties=orders.duties,
        deliver=orders.deliver,
        poll=orders.poll,
        stopped=lambda: told() or os.getppid() != parent,
    )
    try:
        with tracing.exporting():
            worker.run(drain=orders.drain)
    except RefoldError as error:
        log.error("%s %s", error, error.remedy or "")
        sys.exit(REFUSED)
