"""Comparing two ways of doing the same, on a machine that does other things too."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rounds that each measured the product and its baseline, one after the other.

    Args:
        rounds: (seconds of the product, seconds of the baseline) for the same amount of work.
        work: how much that was, for rates.
    """

    rounds: tuple[tuple[float, float], ...]
    work: float

    @property
    def measured(self) -> float:
        """The product's rate: work per second in the median round."""
        return self.work / median(product for product, _ in self.rounds)

    @property
    def baseline(self) -> float:
        """The baseline's."""
        return self.work / median(baseline for _, baseline in self.rounds)

    @property
    def ratio(self) -> float:
        """The product's speed as a part of the baseline's: the median over the rounds."""
        return median(baseline / product for product, baseline in self.rounds)


def alternate(
    rounds: int,
    work: float,
    product: Callable[[int], object],
    baseline: Callable[[int], object],
    *,
    before: Callable[[], object] = lambda: None,
) -> Comparison:
    """Measures product, baseline, product, baseline, …, so that a slow minute of the machine hits both.

    Args:
        rounds: how many of each.
        work: how much one call does.
        product: does the work of a round, given its number.
        baseline: the same by hand.
        before: makes ready for a round; not measured.
    """
    measured = []
    for at in range(rounds):
        before()
        measured.append((seconds(product, at), seconds(baseline, at)))
    return Comparison(tuple(measured), work)


def seconds(act: Callable[[int], object], at: int) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    act(at)
    return time.perf_counter() - started


WARM = 50
"""Most pairs before the first that counts."""


def paired(pairs: int, product: Callable[[], object], baseline: Callable[[], object]) -> list[tuple[float, float]]:
    """Return the seconds of each pair of two short acts, one right after the other in an order drawn by lot."""
    for _ in range(min(WARM, pairs // 4)):
        product()
        baseline()
    found = []
    for _ in range(pairs):
        if random.random() < 0.5:
            one = seconds(lambda _: product(), 0)
            found.append((one, seconds(lambda _: baseline(), 0)))
        else:
            two = seconds(lambda _: baseline(), 0)
            found.append((seconds(lambda _: product(), 0), two))
    return found
