"""Processes that stay up: a parent keeps several children alive, and passes on what stops them.

The parent holds no connection while they run and shares nothing with its children. A child that dies is started again.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from refold.errors import BuildError, DatabaseError

REFUSED = 78
"""Exit status of a child that refused to start (EX_CONFIG of sysexits.h); the parent does not restart it."""
BACKOFF = 0.1, 30.0
"""Seconds before a dead child is restarted: first and longest delay; doubled each time."""
HEALTHY = 60.0
"""Seconds after which a child counts as healthy, so that its next death counts as the first."""
GIVE_UP = 5
"""Consecutive deaths of a child after which a supervisor that may give up fails."""
TICK = 0.25
"""Seconds between two checks of the children by the parent."""

_STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def told_to_stop(log: logging.Logger, told_text: str) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGTERM or SIGINT arrived; a second signal raises KeyboardInterrupt.

    Args:
        log: told of the first signal.
        told_text: what it says then.
    """
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told:
            raise KeyboardInterrupt
        told = True
        log.info("%s (signal again to stop immediately)", told_text)

    before = {number: signal.signal(number, handle) for number in _STOPS}
    try:
        yield lambda: told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class Job:
    """What a child does.

    Args:
        target: module-level function that a child runs with `args` and the parent's process id; see `in_child`.
        args: for the target.
        what: what the child is, for messages: "worker".
    """

    target: Callable[..., None]
    args: tuple[Any, ...]
    what: str


@dataclass(slots=True)
class _Child:
    """One slot of the pool, and its process."""

    job: Job
    process: BaseProcess | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0
    done: bool = field(default=False)


def supervise(
    jobs: Sequence[Job],
    *,
    log: logging.Logger,
    told_text: str,
    tick: Callable[[], None] = lambda: None,
    may_give_up: str | None = None,
) -> None:
    """Keep processes alive until a signal, or until all have ended by themselves.

    Args:
        jobs: one for each child.
        log: told of deaths.
        told_text: what the log says at the first signal.
        tick: called repeatedly, for progress.
        may_give_up: what was not reached, for the error when a child keeps dying; None never gives up.

    Raises:
        DatabaseError: a child refused to start.
        BuildError: a child keeps dying, and the supervisor may give up.
        KeyboardInterrupt: a second signal arrived.
    """
    # spawn: a forked child would share this process's connections, locks and threads.
    context = multiprocessing.get_context("spawn")
    children = [_Child(job) for job in jobs]
    try:
        with told_to_stop(log, told_text) as stopped:
            while not stopped() and not all(child.done for child in children):
                for child in children:
                    if child.process is None and not child.done and time.monotonic() >= child.due:
                        child.process = context.Process(target=child.job.target, args=(*child.job.args, os.getpid()))
                        with _held_back(signal.SIGINT):
                            child.process.start()
                        child.started = time.monotonic()
                wait([child.process.sentinel for child in children if child.process is not None], timeout=TICK)
                if stopped():
                    break
                for child in children:
                    _look_after(child, log, may_give_up)
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


@contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    """Hold a signal back in a block, and in the processes that it starts, until they let it in (`in_child`).

    Else Ctrl-C would end a child with a traceback while it imports.
    """
    # It would be started with the first child, and lets all signals in when it is.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look_after(child: _Child, log: logging.Logger, may_give_up: str | None) -> None:
    """Record the end of a child, and schedule its restart."""
    what = child.job.what
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
        raise DatabaseError(f"a {what} refused to start; see its message above")
    child.deaths = child.deaths + 1 if time.monotonic() - child.started < HEALTHY else 1
    if may_give_up is not None and child.deaths >= GIVE_UP:
        raise BuildError(
            f"a {what} ended {child.deaths} times in a row before {may_give_up}",
            remedy="See the first lines of its messages above: they name the projection and the error.",
        )
    delay = min(BACKOFF[0] * 2 ** (child.deaths - 1), BACKOFF[1])
    child.due = time.monotonic() + delay
    how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
    log.warning("%s %s ended %s; restarting in %.1f s", what, pid, how, delay)


def _send(children: list[_Child], number: signal.Signals) -> None:
    for child in children:
        if child.process is not None and child.process.is_alive() and child.process.pid is not None:
            os.kill(child.process.pid, number)


def in_child() -> Callable[[], bool]:
    """Set the signals of a child of the supervisor; return a function that tells whether it was told to stop.

    Ctrl-C goes to the whole group of processes; the parent passes on what it means. So does a service manager with
    SIGTERM, and then it arrives twice.
    """
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, handle)
    return lambda: told
