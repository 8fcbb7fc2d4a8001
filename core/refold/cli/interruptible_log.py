"""A log for a person at the keyboard: Ctrl-C ends it between two batches."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import psycopg

from refold.cli.output import note
from refold.store.log.log import Log

T = TypeVar("T")


class InterruptibleLog(Log):
    """A log whose batches Ctrl-C lets end, so that the figures told afterwards are exact. A second one does not."""

    def __init__(self, url: str) -> None:
        super().__init__(url, source="ingest")
        self._in_batch = False
        self._asked = False

    def run(self, work: Callable[[psycopg.Connection], T]) -> T:
        self._in_batch = True
        return super().run(work)

    def batch_ended(self) -> None:
        """The batch has been counted.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed meanwhile.
        """
        self._in_batch = False
        if self._asked:
            raise KeyboardInterrupt

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """What SIGINT does."""
        if not self._in_batch or self._asked:
            raise KeyboardInterrupt
        self._asked = True
        note("finishing the batch in hand; Ctrl-C again stops at once")


@contextmanager
def interruptible(log: InterruptibleLog) -> Iterator[None]:
    """Lets SIGINT mean what the log makes of it."""
    before = signal.signal(signal.SIGINT, log.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
