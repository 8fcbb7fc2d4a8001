"""Looks at `status` all the time, and tells when it showed a fault and when the metrics had caught up again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from chaos.stage import Stage
from refold import RefoldError
from refold.inspect import status
from refold.inspect.status import Status
from refold.postgres.connect import connect

EVERY_S = 0.5
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Args:
        at: seconds on the monotonic clock.
        status: what was seen; None when the database could not be asked.
        behind: seconds by which the metric that is furthest behind is behind.
    """

    at: float
    status: Status | None

    @property
    def behind(self) -> float:
        if self.status is None:
            return float("inf")
        return max((build.lag_seconds or 0.0 for build in self.status.builds if build.state == "live"), default=0.0)


class Probe:
    """Takes samples in a thread of its own until closed."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stop = threading.Event()
        self.samples: list[Sample] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no more samples."""
        self._stop.set()
        self._thread.join(30)

    def first(self, since: float, shows: Callable[[Sample], bool]) -> float | None:
        """Seconds from `since` to the first sample that shows something."""
        return next((sample.at - since for sample in self._since(since) if shows(sample)), None)

    def caught_up(self, since: float) -> float | None:
        """Seconds from `since` until every live metric held everything that was in the log then."""
        return self.first(since, lambda sample: sample.behind <= sample.at - since)

    def asked(self, since: float, until: float) -> bool:
        """Whether `status` could be asked at least twice in a time, and no server was away in it."""
        seen = [sample.status is not None for sample in self._since(since) if sample.at <= until]
        return len(seen) > 1 and all(seen)

    def _since(self, moment: float) -> list[Sample]:
        return [sample for sample in list(self.samples) if sample.at >= moment]

    def _run(self) -> None:
        conn: psycopg.Connection | None = None
        while not self._stop.is_set():
            at = time.monotonic()
            seen: Status | None = None
            try:
                if conn is None or conn.closed:
                    conn = connect(self._stage.url, "refold_worker", autocommit=True, application_name="chaos probe")
                seen = status.read(conn)
            except (psycopg.Error, RefoldError):
                if conn is not None:
                    conn.close()
                    conn = None
            self.samples.append(Sample(at, seen))
            self._stop.wait(EVERY_S)
