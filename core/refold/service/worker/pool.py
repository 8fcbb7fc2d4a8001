"""Workers as operating-system processes: one that works by itself, or a parent that keeps several alive.

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
"""What a worker writes about: its work, and the incidents that it opens and closes."""

REFUSED = 78
"""Exit status of a child that cannot work here at all (EX_CONFIG of sysexits.h): starting it again is no use."""
BACKOFF = 0.1, 30.0
"""Seconds before a dead child is started again: at first, and at most; doubled every time."""
HEALTHY = 60.0
"""Seconds after which a child counts as healthy, so that its next death is a first one again."""
GIVE_UP = 5
"""Deaths in a row after which draining is given up: without an end in sight, there is no result either."""
TICK = 0.25
"""Seconds between two looks of the parent at its children."""

_STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker process is to do.

    Args:
        url: a libpq URL; the login role must be allowed to act as refold_worker.
        projections: the folder of Python transforms, if there is one.
        poll: seconds between two looks while no notification arrives.
        drain: stop when everything that was committed is applied.
        duties: what the workers do besides; functions of modules, as they are handed to other processes.
    """

    url: str
    projections: Path | None
    poll: float = POLL
    drain: bool = False
    duties: tuple[Duty, ...] = ()


def run(
    orders: Orders, processes: int = 1, *, tick: Callable[[], None] = lambda: None, log_level: int = logging.INFO
) -> None:
    """Works in this process, or in several below it, until told to stop or everything is drained.

    SIGTERM and SIGINT: pages in hand are finished, then this returns. A second one ends it at once; the pages in
    hand are rolled back and done again by whoever works next.

    Args:
        orders: what to do.
        processes: how many; 1 works in this process.
        tick: called now and then, for progress.
        log_level: of the children.

    Raises:
        DatabaseError: the schema is missing, or the cluster is another.
        BuildError: while draining, workers keep dying.
        KeyboardInterrupt: told to stop twice.
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
    """Whether SIGTERM or SIGINT has come; a second one raises KeyboardInterrupt wherever this process is."""
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            raise KeyboardInterrupt
        told = True
        log.info("stopping after the page in hand; once more stops at once")

    before = {number: signal.signal(number, handle) for number in _STOPS}
    try:
        yield lambda: told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Child:
    """One place in the pool, and the process that has it."""

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
    """Takes note of a child that has ended, and says when it is to be started again."""
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
        raise DatabaseError("a worker cannot work on this database; its message is above")
    child.deaths = child.deaths + 1 if time.monotonic() - child.started < HEALTHY else 1
    if orders.drain and child.deaths >= GIVE_UP:
        raise BuildError(
            f"workers die before everything is applied, {child.deaths} times in a row",
            remedy="The first lines of their messages, above, name the projection and the error.",
        )
    delay = min(BACKOFF[0] * 2 ** (child.deaths - 1), BACKOFF[1])
    child.due = time.monotonic() + delay
    how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
    log.warning("worker %s ended %s; starting another in %.1f s", pid, how, delay)


def _send(children: list[_Child], number: signal.Signals) -> None:
    for child in children:
        if child.process is not None and child.process.is_alive() and child.process.pid is not None:
            os.kill(child.process.pid, number)


def _child(orders: Orders, parent: int, log_level: int) -> None:
    """A worker process of the pool; ends with the parent, also when that was killed."""
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
