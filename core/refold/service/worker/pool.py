"""Workers as operating-system processes: a single worker, or a parent that keeps several alive.

The parent holds no connection while they run and shares nothing with its children: they meet at the locks of the
builds. A child that dies is started again; one that is frozen or killed holds nothing that the others need.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from refold.errors import BuildError, DatabaseError, RefoldError
from refold.postgres.connect import connect
from refold.service.duties.schedule import Duty
from refold.service.worker.listener import POLL
from refold.service.worker.loop import Worker
from refold.store.builds.build import Build
from refold.store.schema.installed import check
from refold.visible import log_on_stderr

log = logging.getLogger("refold.worker")
LOGGERS = ("refold.worker", "refold.incidents")
"""Loggers that a worker writes to: its work, and the incidents that it opens and resolves."""

REFUSED = 78
"""Exit status of a child that refused to start (EX_CONFIG of sysexits.h); the parent does not restart it."""
BACKOFF = 0.1, 30.0
"""Seconds before a dead child is restarted: first and longest delay; doubled each time."""
HEALTHY = 60.0
"""Seconds after which a child counts as healthy, so that its next death counts as the first."""
GIVE_UP = 5
"""Consecutive deaths of a child after which draining fails."""
TICK = 0.25
"""Seconds between two checks of the children by the parent."""

_STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Orders:
    """The configuration of a worker process.

    Args:
        url: libpq URL; the login role must be allowed to act as refold_worker.
        projections: folder of Python transforms, if any.
        poll: polling interval while no notification arrives, seconds.
        drain: stop when every committed event is applied.
        duties: duties of the workers; module-level functions, because other processes receive them.
    """

    url: str
    projections: Path | None
    poll: float = POLL
    drain: bool = False
    duties: tuple[Duty, ...] = ()


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
        _supervise(orders, processes, tick, log_level)


def _work(orders: Orders, tick: Callable[[], None]) -> None:
    with _told_to_stop() as stopped:
        due = 0.0

        def on_page(build: Build, events: int) -> None:
            nonlocal due
            if time.monotonic() >= due:
                tick()
                due = time.monotonic() + TICK

        worker = Worker(
            orders.url, orders.projections, duties=orders.duties, poll=orders.poll, stopped=stopped, on_page=on_page
        )
        worker.run(drain=orders.drain)


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM or SIGINT arrived; a second signal raises KeyboardInterrupt."""
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            raise KeyboardInterrupt
        told = True
        log.info("stopping after the current page (signal again to stop immediately)")

    before = {number: signal.signal(number, handle) for number in _STOPS}
    try:
        yield lambda: told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Child:
    """One slot of the pool, and its process."""

    process: BaseProcess | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0
    done: bool = field(default=False)


def _supervise(orders: Orders, processes: int, tick: Callable[[], None], log_level: int) -> None:
    # spawn: a forked child would share this process's connections, locks and threads.
    context = multiprocessing.get_context("spawn")
    children = [_Child() for _ in range(processes)]
    try:
        with _told_to_stop() as stopped:
            while not stopped() and not all(child.done for child in children):
                for child in children:
                    if child.process is None and not child.done and time.monotonic() >= child.due:
                        child.process = context.Process(target=_child, args=(orders, os.getpid(), log_level))
                        child.process.start()
                        child.started = time.monotonic()
                wait([child.process.sentinel for child in children if child.process is not None], timeout=TICK)
                for child in children:
                    _look_after(child, orders)
                tick()
            _send(children, signal.SIGTERM)
            while any(child.process is not None and child.process.is_alive() for child in children):
                wait([child.process.sentinel for child in children if child.process is not None], timeout=TICK)
    finally:
        # Told twice, or gave up: what they hold is rolled back by the server.
        _send(children, signal.SIGKILL)
        for child in children:
            if child.process is not None:
                child.process.join()
                child.process.close()


def _look_after(child: _Child, orders: Orders) -> None:
    """Record the end of a child, and schedule its restart."""
    if child.process is None or child.process.is_alive():
        return
    code = child.process.exitcode
    pid = child.process.pid
    child.process.close()
    child.process = None
    if code == 0:
        child.done = True
        return
    if code == REFUSED:
        raise DatabaseError("a worker refused to start; see its message above")
    child.deaths = child.deaths + 1 if time.monotonic() - child.started < HEALTHY else 1
    if orders.drain and child.deaths >= GIVE_UP:
        raise BuildError(
            f"a worker ended {child.deaths} times in a row before all events were applied",
            remedy="See the first lines of its messages above: they name the projection and the error.",
        )
    delay = min(BACKOFF[0] * 2 ** (child.deaths - 1), BACKOFF[1])
    child.due = time.monotonic() + delay
    how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
    log.warning("worker %s ended %s; restarting in %.1f s", pid, how, delay)


def _send(children: list[_Child], number: signal.Signals) -> None:
    for child in children:
        if child.process is not None and child.process.is_alive() and child.process.pid is not None:
            os.kill(child.process.pid, number)


def _child(orders: Orders, parent: int, log_level: int) -> None:
    """Run a worker process of the pool; it ends with the parent, even if the parent was killed."""
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True

    # Ctrl-C goes to the whole group of processes; the parent passes on what it means. So does a service manager
    # with SIGTERM, and then it arrives twice.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, handle)
    log_on_stderr()
    for name in LOGGERS:
        logging.getLogger(name).setLevel(log_level)
    worker = Worker(
        orders.url,
        orders.projections,
        duties=orders.duties,
        poll=orders.poll,
        stopped=lambda: told or os.getppid() != parent,
    )
    try:
        worker.run(drain=orders.drain)
    except RefoldError as error:
        log.error("%s %s", error, error.remedy or "")
        sys.exit(REFUSED)
