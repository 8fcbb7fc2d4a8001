"""Faults of processes: workers, producers and the HTTP door, killed or frozen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from chaos.faults.injection import (
    Injected,
)
from chaos.stage import Stage


def _signal_worker(stage: Stage, number: int, what: signal.Signals) -> int | None:
    worker = stage.workers[number]
    if worker is None or worker.poll() is not None:
        return None
    worker.send_signal(what)
    return worker.pid


def _freeze(processes: Sequence[subprocess.Popen[bytes] | None], seconds: float) -> None:
    frozen = [process for process in processes if process is not None]
    for process in frozen:
        process.send_signal(signal.SIGSTOP)
    time.sleep(seconds if frozen else 0)
    for process in frozen:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)


def worker_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9; the supervisor starts another."""
    done.note = f"process {_signal_worker(stage, how['worker'], signal.SIGKILL)}"


def worker_frozen(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """SIGSTOP, and SIGCONT later, when others have taken over."""
    _freeze([stage.workers[how["worker"]]], how["seconds"])


def all_workers_frozen(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Nobody works: `status` must show the lag."""
    done.shows = lambda sample: 1.0 < sample.behind < 1e6
    done.must_show = True
    _freeze(stage.workers, how["seconds"])


def producer_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of a producer and what it started; another takes its place, and numbers its events anew."""
    done.note = stage.kill_producer(how["producer"])


def door_killed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """kill -9 of `refold serve`, perhaps between a commit and its reply; the supervisor starts another."""
    door = stage.door
    if door is not None and door.poll() is None:
        os.killpg(door.pid, signal.SIGKILL)
        done.note = f"process {door.pid}"


def door_frozen(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """SIGSTOP with groups under way, and SIGCONT later."""
    _freeze([stage.door], how["seconds"])
