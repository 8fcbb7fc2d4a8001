"""What holds producers back: signals that a duty of workers measures, and everybody who brings events in reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from refold.model.pressure import Level

RETRY_AFTER_S = 15
"""Seconds that a producer is told to wait, if it is refused: workers measure every five."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal of `refold.pressure`.

    Args:
        signal: `lag` (seconds), `connections`, `disk` or `replication` (the used part).
        level: 0 fine, 1 bulk waits, 2 producers are refused.
        value: what was measured.
        slow_at: value from which bulk waits.
        stop_at: value from which producers are refused; None if never.
        since: when the level was reached, UTC.
        seen_at: when it was last measured, UTC.
        known: whether that is recent. One that is not known keeps its level.
    """

    signal: str
    level: int
    value: float
    slow_at: float
    stop_at: float | None
    since: datetime
    seen_at: datetime
    known: bool


@dataclass(frozen=True, slots=True)
class Pressure:
    """All signals together.

    Args:
        signals: the worst first.
    """

    signals: tuple[Signal, ...] = ()

    @property
    def level(self) -> Level:
        """Return the highest level."""
        return Level(max((one.level for one in self.signals), default=0))

    @property
    def known(self) -> bool:
        """Return whether workers measure at present: without any signal, nobody knows."""
        return bool(self.signals) and all(one.known for one in self.signals)

    @property
    def because(self) -> str:
        """Return the worst signal in words; empty if all is fine."""
        if self.level is Level.fine:
            return ""
        worst = self.signals[0]
        if worst.signal == "lag":
            return f"metrics are {worst.value:.0f} s behind"
        return f"{worst.signal}: {worst.value:.0%} used"


def pressure(conn: psycopg.Connection) -> Pressure:
    """Return what holds producers back.

    Args:
        conn: may act as refold_producer, or any other role of refold.
    """
    with conn.cursor(row_factory=class_row(Signal)) as cursor:
        found = cursor.execute(
            "SELECT * FROM refold.pressure ORDER BY level DESC, value / nullif(slow_at, 0) DESC"
        ).fetchall()
    return Pressure(tuple(found))


def lag(conn: psycopg.Connection) -> tuple[float, str | None]:
    """Return the age of the oldest event that a live metric lacks, in seconds, and the metric.

    A metric that fails is left out: it would hold everything up.

    Args:
        conn: acts as refold_worker.
    """
    row = conn.execute(
        """
        SELECT greatest(extract(epoch FROM clock_timestamp() - o.recorded_at), 0)::float8, b.projection
        FROM refold.builds_now AS b
        CROSS JOIN LATERAL refold.oldest_unread(b.done, b.target, b.progress_txid, b.progress_position) AS o
        WHERE b.state = 'live' AND b.failing IS NULL
        ORDER BY o.recorded_at LIMIT 1
        """
    ).fetchone()
    return (0.0, None) if row is None else (row[0], row[1])


def record(conn: psycopg.Connection, signals: Iterable[tuple[str, Level, float, float, float | None]]) -> None:
    """Record what was measured, and remove the signals that no longer are.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        signals: name, level, value, and the values from which bulk waits and producers are refused.
    """
    measured = list(signals)
    with conn.transaction():
        for name, level, value, slow_at, stop_at in measured:
            conn.execute(
                """
                INSERT INTO refold.pressure_signals AS p (signal, level, value, slow_at, stop_at)
                VALUES (%s, %s, %s, %s, %s)
                ON CONFLICT (signal) DO UPDATE SET
                    level = excluded.level, value = excluded.value, slow_at = excluded.slow_at,
                    stop_at = excluded.stop_at, seen_at = clock_timestamp(),
                    since = CASE WHEN p.level = excluded.level THEN p.since ELSE clock_timestamp() END
                """,
                (name, int(level), value, slow_at, stop_at),
            )
        conn.execute("DELETE FROM refold.pressure_signals WHERE signal <> ALL (%s)", ([name for name, *_ in measured],))
