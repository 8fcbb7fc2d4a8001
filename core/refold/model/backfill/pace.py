"""How fast a backfill runs: as fast as live metrics stay fresh. Pure.

Slow to increase, quick to decrease: as long as metrics are well below the limit, each batch is a tenth larger than the
one before; nearer to it, a tenth smaller. As soon as they are late it is half as large, and waits. One look after each
batch does not see the latest event: batches that keep what they see at the limit make many events later than it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

LEAST = 100
"""Fewest records in a batch, and those in the first."""
MOST = 20_000
"""Most records in a batch."""
CALM = 0.5
"""Part of the limit up to which batches grow, and to which metrics must catch up before a batch that waits is given to
the log."""
PATIENCE_S = 600.0
"""Seconds for which metrics may be late before a backfill pauses itself."""
MEMORY_S = 60.0
"""Seconds over which the rate is averaged."""
SHORTEST_S, LONGEST_S = 0.1, 2.0
"""Bounds of a freshness limit that nobody has given."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a backfill.

    Args:
        batch: records in the next batch.
        late_since: when metrics became late, seconds of any clock; None: they are fresh.
    """

    batch: int = LEAST
    late_since: float | None = None

    def after_batch(self, age_s: float, limit_s: float, now_s: float) -> Pace:
        """Return the pace after a batch.

        Args:
            age_s: how long the oldest event has waited that a live metric lacks, seconds.
            limit_s: how long it may.
            now_s: the time.
        """
        if age_s <= limit_s * CALM:
            return Pace(min(MOST, self.batch + math.ceil(self.batch / 10)))
        if age_s <= limit_s:
            return Pace(max(LEAST, self.batch - math.ceil(self.batch / 10)))
        return replace(self.looked(age_s, limit_s, now_s), batch=max(LEAST, self.batch // 2))

    def looked(self, age_s: float, limit_s: float, now_s: float) -> Pace:
        """Return the pace after a look at the metrics while a batch waits."""
        if age_s <= limit_s:
            return replace(self, late_since=None)
        return self if self.late_since is not None else replace(self, late_since=now_s)

    def may_go(self, age_s: float, limit_s: float, *, waits: bool) -> bool:
        """Return whether the next batch may be given to the log.

        Args:
            age_s: how long the oldest event has waited that a live metric lacks, seconds.
            limit_s: how long it may.
            waits: whether the batch has had to wait already. Then metrics must be well below the limit.
        """
        return age_s <= (limit_s * CALM if waits else limit_s)

    def overdue(self, now_s: float) -> bool:
        """Return whether metrics have been late for so long that the backfill must pause."""
        return self.late_since is not None and now_s - self.late_since >= PATIENCE_S


def limit(usual_s: float | None) -> float:
    """Return the freshness limit where nobody has given one: twice what is usual, within bounds, seconds.

    Args:
        usual_s: within how many seconds 99 of 100 events reach live metrics; None: not known.
    """
    return LONGEST_S if usual_s is None else min(LONGEST_S, max(SHORTEST_S, 2 * usual_s))


def averaged(per_second: float | None, records: int, seconds: float) -> float:
    """Return the rate over about the last minute: a moving average with exponential weights.

    Args:
        per_second: the rate before; None at the start.
        records: records since then.
        seconds: time since then, waits included.
    """
    now = records / max(seconds, 1e-6)
    if per_second is None:
        return now
    weight = 1 - math.exp(-seconds / MEMORY_S)
    return per_second + weight * (now - per_second)


def remaining_s(left: int, per_second: float | None) -> float | None:
    """Return how long a number of records takes, seconds; None if that is not known."""
    return left / per_second if per_second else None
