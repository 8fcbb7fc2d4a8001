"""A log for interactive use: Ctrl-C stops it between two batches."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import psycopg

from refold.cli.output import note
from refold.postgres.connect import Role
from refold.store.log.log import Log
from refold.store.pressure import Pressure

T = TypeVar("T")


class InterruptibleLog(Log):
    """A log that Ctrl-C stops after the current batch, so that counts are exact; a second Ctrl-C stops it at once."""

    def __init__(self, url: str, role: Role = "refold_producer") -> None:
        super().__init__(url, source="ingest", pressure="wait", on_wait=self._waits)
        self._role = role
        self._in_batch = False
        self._asked = False
        self._told = ""

    def hold_back(self) -> None:
        super().hold_back()
        self.batch_ended()

    def _waits(self, pressure: Pressure) -> None:
        """Tell once why the file waits, and let Ctrl-C end it."""
        if self._told != pressure.signals[0].signal:
            self._told = pressure.signals[0].signal
            note(f"waiting, so that live events come first: {pressure.because}")
        self.batch_ended()

    def run(self, work: Callable[[psycopg.Connection], T]) -> T:
        self._in_batch = True
        return super().run(work)

    def batch_ended(self) -> None:
        """Record that the batch has been counted.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed during the batch.
        """
        self._in_batch = False
        if self._asked:
            raise KeyboardInterrupt

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGINT."""
        if not self._in_batch or self._asked:
            raise KeyboardInterrupt
        self._asked = True
        note("stopping after the current batch (Ctrl-C again to stop immediately)")


@contextmanager
def interruptible(log: InterruptibleLog) -> Iterator[None]:
    """Let the log handle SIGINT."""
    before = signal.signal(signal.SIGINT, log.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
