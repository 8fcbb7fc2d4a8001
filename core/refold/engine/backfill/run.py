"""The lane: the staged records of a backfill go to the log in order, as fast as live metrics stay fresh.

A batch is one transaction: the log answers its records, and the mark moves behind them. A process that is killed has
done the one and the other, or neither, and the same command goes on behind the mark.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import psycopg

from refold.errors import BuildError
from refold.model.backfill.pace import PATIENCE_S, Pace, averaged
from refold.model.pressure import Level
from refold.model.quantiles import quantile
from refold.postgres.failpoints import failpoint
from refold.postgres.locks import alone
from refold.postgres.rows import one_row
from refold.store import file_backfills as store
from refold.store import incidents
from refold.store.file_backfills import FileBackfill
from refold.store.log.log import Log
from refold.store.pressure import lag, pressure

COMMAND = "refold backfill"
LATE = f"metrics were late for {PATIENCE_S / 60:.0f} minutes"
"""Why a backfill has paused itself."""
CHARACTERS = 32 * 2**20
"""Characters in a transaction, about, so that long records do not fill the memory."""
LOOK_S = 0.05
"""Seconds between two looks while a batch waits."""
_LOCK_S = 5.0
"""Seconds to wait for the lane: a vacuum of its table may hold it for a moment."""

# A small number is sent as a smallint, and the sum of two is one too, unless somebody says what it is.
_GIVE = """
WITH taken AS MATERIALIZED (
    SELECT * FROM {staging} AS s
    WHERE s.number > %(mark)s AND s.number <= %(mark)s::bigint + %(batch)s
      AND (s.number = %(mark)s + 1
           OR s.characters <= %(characters)s
              + coalesce((SELECT b.characters FROM {staging} AS b WHERE b.number = %(mark)s), 0))
), answered AS MATERIALIZED (
    SELECT a.ordinal, a.answer, a.reason
    FROM refold.admit_parsed(ARRAY(
        SELECT ROW((t.number - %(mark)s)::integer, t.event_id, t.user_id, t.action, t.ts, t.metadata, t.version,
                   t.problem)::refold.parsed_event
        FROM taken AS t ORDER BY t.number
    )) AS a
), kept AS MATERIALIZED (
    SELECT refold.reject(
        %(name)s, t.line, a.answer, a.reason || ' (' || (%(files)s::text[])[t.file] || ')',
        coalesce(t.raw, json_build_object('id', t.event_id, 'user_id', t.user_id, 'action', t.action, 'ts', t.ts,
                                          'metadata', t.metadata, 'version', t.version)::text))
    FROM answered AS a JOIN taken AS t ON t.number = %(mark)s + a.ordinal
    WHERE a.answer IN ('conflict', 'invalid')
)
SELECT a.answer, count(*), max(a.ordinal), (SELECT count(*) FROM kept) FROM answered AS a GROUP BY a.answer
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run keeps to.

    Args:
        freshness_s: seconds that live metrics may be behind.
        rate: most records a second; None: as many as stay fresh.
        until: when it pauses.
    """

    freshness_s: float
    rate: int | None = None
    until: datetime | None = None


class _Stopped(Exception):
    """The backfill is not to run any more; it has another state already."""


def run(
    lane: Log,
    reader: Log,
    backfill: FileBackfill,
    terms: Terms,
    *,
    progress: Callable[[FileBackfill], object] = lambda backfill: None,
    between: Callable[[], object] = lambda: None,
) -> FileBackfill:
    """Give the log the records of a backfill that are left; return the backfill, which is done, paused or aborted.

    Args:
        lane: acts as refold_backfill.
        reader: acts as refold_worker; it looks at live metrics, and writes incidents.
        backfill: the backfill, checked.
        terms: what the run keeps to.
        progress: called after every batch, and about every second while one waits.
        between: called between two batches; it may raise KeyboardInterrupt.

    Raises:
        BuildError: another backfill runs.
        InputError: the server has lost what was staged.
    """
    with alone(
        lane.connection(),
        store.TABLE,
        "run a backfill",
        "refold_backfill",
        seconds=_LOCK_S,
        busy=lambda holder: _busy(lane.connection(), holder),
    ):
        # Another run may have ended it meanwhile, and dropped what was staged.
        backfill = store.read(lane.connection(), backfill.backfill_id)
        if backfill.ended_at is not None:
            return backfill
        store.insist_on_staged(lane.connection(), backfill)
        pace = Pace() if backfill.batch is None else Pace(backfill.batch)
        backfill = store.start(
            lane.connection(), backfill, rate=terms.rate, freshness=terms.freshness_s, batch=pace.batch
        )
        reader.run(lambda conn: incidents.resolve(conn, "backfill_paused", backfill.name, by=COMMAND))
        failpoint("lane_begun")
        try:
            return _Lane(lane, reader, backfill, terms, pace, progress, between).run()
        except KeyboardInterrupt:
            lane.run(lambda conn: store.pause(conn, backfill, "interrupted"))
            raise
        finally:
            store.sweep(lane.connection())


def _busy(conn: psycopg.Connection, holder: str) -> BuildError | None:
    """Return the error that names the backfill which runs; None if it cannot be told which."""
    names = [one.name for one in store.every(conn, open_only=True) if one.state == "running"]
    if not names:
        return None
    return BuildError(
        f"only one session may run a backfill at a time, and another runs {names[0]}: {holder}",
        remedy=f"Wait until it ends, or end it: `refold backfill pause {names[0]}`.",
    )


class _Lane:
    """A run; the arguments are those of `run`."""

    def __init__(
        self,
        lane: Log,
        reader: Log,
        backfill: FileBackfill,
        terms: Terms,
        pace: Pace,
        progress: Callable[[FileBackfill], object],
        between: Callable[[], object],
    ) -> None:
        self.lane = lane
        self.reader = reader
        self.backfill = backfill
        self.terms = terms
        self.pace = pace
        self.progress = progress
        self.between = between
        self.per_second: float | None = None
        self.because: str | None = None
        (self.began_at,) = one_row(lane.connection(), "SELECT clock_timestamp()")

    def run(self) -> FileBackfill:
        try:
            while self.backfill.ended_at is None:
                began = time.monotonic()
                self._wait()
                before = self.backfill.mark
                self.backfill = self.lane.run(self._batch)
                failpoint("lane_committed")
                age, worst = self.reader.run(lag)
                self._keep_to_rate(began, self.backfill.mark - before)
                now = time.monotonic()
                self.per_second = averaged(self.per_second, self.backfill.mark - before, now - began)
                self.pace = self.pace.after_batch(age, self.terms.freshness_s, now)
                self.because = self._late(age, worst) if age > self.terms.freshness_s else None
                self.progress(replace(self.backfill, per_second=self.per_second, because=self.because))
                self.between()
        except _Stopped:
            self.backfill = store.read(self.lane.connection(), self.backfill.backfill_id)
        return self.backfill

    def _batch(self, conn: psycopg.Connection) -> FileBackfill:
        """Give the log the next batch, and move the mark, in the caller's transaction."""
        locked = store.read(conn, self.backfill.backfill_id, lock=True)
        if locked.state != "running":
            raise _Stopped
        failpoint("lane_locked")
        answers = _give(conn, locked, self.pace.batch)
        failpoint("lane_stored")
        moved = store.step(
            conn,
            locked,
            answers,
            began_at=self.began_at,
            batch=self.pace.batch,
            per_second=self.per_second,
            because=self.because,
        )
        failpoint("lane_moved")
        return moved

    def _wait(self) -> None:
        """Wait until live metrics are fresh and nothing holds producers back."""
        told = float("-inf")
        waits = self.pace.late_since is not None
        while True:
            if self.terms.until is not None and datetime.now(self.terms.until.tzinfo) >= self.terms.until:
                self._pause(f"it runs until {self.terms.until:%H:%M}")
            age, worst = self.reader.run(lag)
            held = self.reader.run(pressure)
            now = time.monotonic()
            self.pace = self.pace.looked(age, self.terms.freshness_s, now)
            if held.level is not Level.fine and held.known:
                because = f"producers are held back: {held.because}"
            elif not self.pace.may_go(age, self.terms.freshness_s, waits=waits):
                because = self._late(age, worst)
                if self.pace.overdue(now):
                    self._pause_late(age)
            else:
                return
            waits = True
            if now - told >= 1:
                told = now
                if self.lane.run(lambda conn, because=because: store.wait(conn, self.backfill, because)) != "running":  # type: ignore[misc]
                    raise _Stopped
                self.progress(replace(self.backfill, per_second=self.per_second, because=because))
            self.between()
            time.sleep(LOOK_S)

    def _late(self, age: float, worst: str | None) -> str:
        return f"{worst} is {age:.1f} s behind, and may be {self.terms.freshness_s:.1f} s"

    def _keep_to_rate(self, began: float, records: int) -> None:
        """Wait until a batch has taken the time that the rate allows it."""
        if self.terms.rate is None:
            return
        until = began + records / self.terms.rate
        while (left := until - time.monotonic()) > 0:
            self.between()
            time.sleep(min(left, LOOK_S))

    def _pause(self, because: str) -> None:
        self.lane.run(lambda conn: store.pause(conn, self.backfill, because))
        raise _Stopped

    def _pause_late(self, age: float) -> None:
        """Pause, and open an incident: somebody must find out why metrics are late."""
        evidence = {
            "age": round(age, 1),
            "limit": self.terms.freshness_s,
            "for": PATIENCE_S,
            "left": self.backfill.left,
        }
        self.reader.run(
            lambda conn: incidents.detect(conn, "backfill_paused", self.backfill.name, by=COMMAND, evidence=evidence)
        )
        self._pause(LATE)


def _give(conn: psycopg.Connection, backfill: FileBackfill, batch: int) -> Mapping[str, int]:
    """Give the log the next records; return the number of each answer."""
    rows = conn.execute(
        _GIVE.format(staging=backfill.staging).encode(),
        {
            "mark": backfill.mark,
            "batch": batch,
            "characters": CHARACTERS,
            "name": backfill.name,
            "files": [str(file["name"]) for file in backfill.files],
        },
    ).fetchall()
    # The numbers have no gaps: if the last is not as far from the mark as there are records, some are lost.
    records = sum(row[1] for row in rows)
    if (records == 0 and backfill.left) or any(row[2] > records for row in rows):
        raise store.lost(backfill)
    return {row[0]: row[1] for row in rows}


def usual_s(conn: psycopg.Connection) -> float | None:
    """Return within how many seconds 99 of 100 events of the last hour reached the slowest live metric.

    Minutes in which a backfill ran do not count. None: no metric was given an event in the others.

    Args:
        conn: acts as refold_worker.
    """
    counts: dict[int, dict[int, int]] = defaultdict(dict)
    for build_id, bucket, events in conn.execute(
        """
        SELECT l.build_id, l.bucket, sum(l.events)::bigint
        FROM refold.latencies AS l JOIN refold.builds AS b ON b.build_id = l.build_id AND b.state = 'live'
        WHERE l.stage = 'fresh' AND l.minute BETWEEN clock_timestamp() - interval '1 hour' AND clock_timestamp()
          AND NOT EXISTS (
              SELECT FROM refold.file_backfills AS f WHERE f.ran && tstzrange(l.minute, l.minute + interval '1 minute')
          )
        GROUP BY 1, 2
        """
    ).fetchall():
        counts[build_id][bucket] = events
    found = [known for one in counts.values() if (known := quantile(one, 0.99)) is not None]
    return max(found, default=None)


def abort(conn: psycopg.Connection, backfill: FileBackfill) -> None:
    """End a backfill, and drop what is staged; the events that the log has taken stay.

    Args:
        conn: acts as refold_backfill, in autocommit mode.
        backfill: the backfill.
    """
    store.end(conn, backfill, "aborted")
    store.sweep(conn)
