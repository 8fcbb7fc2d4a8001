"""What a campaign finds that does not hold."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Findings:
    """What does not hold.

    Args:
        violations: by invariant, what was seen.
        lost: acknowledged events that are not in the log, or not in the metrics.
        double: events that are in the log, or counted, more than once.
    """

    violations: dict[str, list[str]] = field(default_factory=dict)
    lost: int = 0
    double: int = 0

    def add(self, invariant: str, what: str) -> None:
        """Notes a violation."""
        told = self.violations.setdefault(invariant, [])
        if what not in told:
            told.append(what)
