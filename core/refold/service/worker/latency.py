"""Latencies of events: waiting, applying, and until they can be queried.

A worker looks at one event of a page, the last one, and at no more than a few pages a second; each look stands for
the events that were applied since the one before. It counts in memory and writes now and then, so that pages stay
as fast as they are; a worker that is killed takes a few seconds of figures with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import psycopg

from refold.engine.apply.page import Applied
from refold.model.quantiles import bucket
from refold.store.builds.build import Build

LOOK_EVERY = 0.2
"""Seconds between two measurements of a build; each costs a round trip."""
WRITE_EVERY = 5.0
"""Seconds between two writes."""


class Latencies:
    """The latencies that one worker has measured and not written yet.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked: dict[int, float] = {}
        self._unseen: Counter[int] = Counter()
        self._counts: Counter[tuple[int, str, int]] = Counter()
        self._due = clock() + WRITE_EVERY

    def note(self, conn: psycopg.Connection, build: Build, applied: Applied) -> None:
        """Measure a page that has just been committed.

        Args:
            conn: a worker's connection, in autocommit mode.
            build: build of the page.
            applied: result of the page.
        """
        if not applied.events or applied.last is None:
            return
        now = self._clock()
        self._unseen[build.build_id] += applied.events
        if now < self._looked.get(build.build_id, -LOOK_EVERY) + LOOK_EVERY:
            return
        self._looked[build.build_id] = now
        # Both times are the server's: no difference of clocks comes into it.
        # The position stands in the statement, so that the planner looks at its segment alone.
        row = conn.execute(
            "SELECT extract(epoch FROM clock_timestamp() - recorded_at)::float8 FROM refold.events"
            f" WHERE txid = %s::text::xid8 AND position = {applied.last.position:d}".encode(),
            (str(applied.last.txid),),
            prepare=False,
        ).fetchone()
        events = self._unseen.pop(build.build_id)
        if row is None:
            return
        fresh = row[0]
        stages = {"waiting": fresh - applied.seconds, "applying": applied.seconds, "fresh": fresh}
        for stage, seconds in stages.items():
            self._counts[build.build_id, stage, bucket(seconds)] += events

    def write(self, conn: psycopg.Connection, *, now: bool = False) -> None:
        """Add the counts to `refold.latencies` when a write is due.

        Args:
            conn: a worker's connection, in autocommit mode.
            now: write at once, even if no write is due.
        """
        if not self._counts or (not now and self._clock() < self._due):
            return
        # In the order of the key: two workers cannot wait for each other.
        rows = sorted((build, stage, number, events) for (build, stage, number), events in self._counts.items())
        conn.execute(
            """
            INSERT INTO refold.latencies AS l (minute, build_id, stage, bucket, events)
            SELECT date_trunc('minute', now()), s.* FROM unnest(
                %s::bigint[], %s::text[], %s::integer[], %s::bigint[]) AS s (build_id, stage, bucket, events)
            ON CONFLICT (minute, build_id, stage, bucket) DO UPDATE SET events = l.events + EXCLUDED.events
            """,
            tuple(list(column) for column in zip(*rows, strict=True)),
        )
        self._counts.clear()
        self._due = self._clock() + WRITE_EVERY
