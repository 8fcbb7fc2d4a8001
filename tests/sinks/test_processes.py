"""Deliverers as processes: killed between any two steps, frozen past their lease, and several at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from refold.postgres.failpoints import POINTS
from refold.store import sinks
from tests.sinks.test_histories import again
from tests.sinks.test_rows import METRICS
from tests.support.delivering import Connection, deliver, deploy_sink, differences, to_postgres, url_of
from tests.support.scratch import Scratch
from tests.support.sessions import pids
from tests.support.waiting import wait_until

# A notice of an erasure is given after all rows: tests/sinks/test_erasure_notices.py.
STEPS = [point for point in POINTS if point.startswith("sink") and point != "sink_told"]


@contextmanager
def delivering(scratch: Scratch, *options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run `refold deliver`."""
    command = [
        sys.executable, "-m", "refold", "deliver", "--database-url", scratch.url, "--projections", str(scratch.folder),
    ]  # fmt: skip
    with subprocess.Popen(
        [*command, *options], env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def behind(scratch: Scratch, target: Connection) -> Scratch:
    """A sink that has delivered once, with rows that the receiver lacks."""
    return left_behind(scratch, target, "merge", "rows")


def left_behind(scratch: Scratch, target: Connection, metric: str, grain: str) -> Scratch:
    scratch.deploy_one(metric, METRICS[metric])
    scratch.append(5, user_id="ann")
    scratch.drain()
    text = to_postgres(metric, url_of(scratch, target))
    deploy_sink(scratch.worker, "copy", f'grain = "{grain}"\n{text}')
    deliver(scratch.worker, scratch.folder, "copy")
    scratch.append(5, user_id="ben")
    scratch.append(5, user_id=None)
    scratch.drain()
    return scratch


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step(behind: Scratch, target: Connection, step: str) -> None:
    with delivering(behind, REFOLD_CRASH_AT=step) as process:
        assert process.wait(60) == -signal.SIGKILL, process.communicate()[0]
    again(behind.worker, sinks.known(behind.worker, "copy").sink_id)
    deliver(behind.worker, behind.folder, "copy", me="another")
    assert differences(behind.worker, "merge", target) == []


@pytest.mark.parametrize("step", STEPS)
def test_events_while_killed_at_any_step(scratch: Scratch, target: Connection, step: str) -> None:
    left_behind(scratch, target, "facts", "events")
    with delivering(scratch, REFOLD_CRASH_AT=step) as process:
        assert process.wait(60) == -signal.SIGKILL, process.communicate()[0]
    again(scratch.worker, sinks.known(scratch.worker, "copy").sink_id)
    deliver(scratch.worker, scratch.folder, "copy", me="another")
    assert differences(scratch.worker, "facts", target) == []


@pytest.mark.parametrize("step", ["sink_read", "sink_sent"])
def test_frozen_past_its_lease(behind: Scratch, target: Connection, step: str) -> None:
    """Another delivers newer rows meanwhile. The one that wakes up changes nothing, here or at the receiver."""
    with delivering(behind, REFOLD_FREEZE_AT=step) as process:
        stat = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: stat.read_text().split(") ")[1].startswith("T") or None)
        again(behind.worker, sinks.known(behind.worker, "copy").sink_id)
        behind.append(5, user_id="ann")
        behind.drain()
        deliver(behind.worker, behind.folder, "copy", me="another")
        assert differences(behind.worker, "merge", target) == []
        process.send_signal(signal.SIGCONT)
        behind.append(5, user_id="cid")
        behind.drain()
        wait_until(lambda: differences(behind.worker, "merge", target) == [] or None, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, process.communicate()[0]
    assert differences(behind.worker, "merge", target) == []


def test_several_at_once(behind: Scratch, target: Connection) -> None:
    with delivering(behind) as one, delivering(behind) as two:
        for user in ("ann", "ben", "cid", "dan"):
            behind.append(20, user_id=user)
            behind.drain()
        wait_until(lambda: differences(behind.worker, "merge", target) == [] or None, 60)
        wait_until(lambda: len(pids(behind.worker, "refold sinks")) >= 2 or None, 60)
        for process in (one, two):
            process.send_signal(signal.SIGTERM)
        for process in (one, two):
            assert process.wait(30) == 0, process.communicate()[0]
    # Both have given their leases back.
    state, _ = sinks.state(behind.worker, sinks.known(behind.worker, "copy").sink_id)
    assert state.holder is None


def test_a_worker_delivers(behind: Scratch, target: Connection) -> None:
    command = [
        sys.executable, "-m", "refold", "worker", "--database-url", behind.url, "--projections", str(behind.folder),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            behind.append(20, user_id="ann")
            wait_until(
                lambda: target.execute("SELECT events FROM copy WHERE user_id = 'ann'").fetchone() == (25,) or None, 60
            )
            process.send_signal(signal.SIGTERM)
            assert process.wait(40) == 0, process.communicate()[0]
        finally:
            process.kill()


def test_drain_ends_when_nothing_is_due(behind: Scratch, target: Connection) -> None:
    with delivering(behind, "--drain") as process:
        assert process.wait(60) == 0, process.communicate()[0]
    assert differences(behind.worker, "merge", target) == []
