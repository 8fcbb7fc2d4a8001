"""`/rejected`: input that did not get into the log, by answer, source and reason."""

from __future__ import annotations

from dataclasses import dataclass

from refold.dashboard.ask import Ask
from refold.inspect.health import Health
from refold.inspect.left_out import REJECTED, RejectedGroup, rejected_groups


@dataclass(frozen=True, slots=True)
class RejectedPage:
    """What the page shows."""

    health: Health
    groups: list[RejectedGroup]

    @property
    def records(self) -> int:
        """Return how many records are grouped."""
        return sum(one.records for one in self.groups)

    @property
    def cut(self) -> bool:
        """Return whether there may be older records."""
        return self.records >= REJECTED


def read(ask: Ask) -> RejectedPage:
    """Read the page."""
    return RejectedPage(ask.health(), ask.read(lambda conn: rejected_groups(conn, evidence=ask.evidence)))
