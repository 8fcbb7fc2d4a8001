"""Random histories of appends, pages, folds, purges, damage and heals: the law holds after each step."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from refold.engine.apply.page import apply_next_page
from refold.engine.purge import fold as folding
from refold.engine.purge.purge import drop
from refold.store import archives
from tests.engine.purge.conftest import ENDS, Yard

pytestmark = pytest.mark.live("archived")

STEPS = 24


class History:
    """What happens to a yard, one step after the other."""

    def __init__(self, yard: Yard, seed: int) -> None:
        self.yard, self.random = yard, random.Random(seed)
        self.end = 3

    def append(self) -> None:
        self.yard.append(self.random.randrange(1, 25))

    def page(self) -> None:
        """Some builds apply a page, in any order."""
        for build in self.random.sample(self.yard.builds(), 4):
            apply_next_page(
                self.yard.worker, self.yard.compiler.of(self.yard.worker, build), self.random.randrange(1, 9)
            )

    def drain(self) -> None:
        self.yard.drain()

    def next_segment(self) -> None:
        """The log goes on in the next segment; the former one is sealed and archived."""
        if self.end < len(ENDS) - 1:
            self.yard.drain()
            self.yard.skip_to(ENDS[self.end])
            self.end += 1
            self.yard.seal()
            self.yard.archive()

    def fold(self) -> None:
        """A step for one build, as large as it happens to be."""
        first = archives.find(self.yard.worker, "a.state = 'verified' AND a.lower_position = refold.log_floor()")
        builds = [one for one in self.yard.of_log() if one.upkeep in ("merge", "members")]
        if first:
            build = self.random.choice(builds)
            folding.fold(self.yard.worker, self.yard.compiler, build, first[0], step=self.random.randrange(100, 20_000))

    def purge(self) -> None:
        done = self.yard.purge()
        assert done.stopped_at is None or all(one.passes for one in done.stopped_at.obstacles)

    def settle(self) -> None:
        for build in self.yard.of_log():
            if build.based and build.upkeep in ("merge", "members"):
                folding.settle(self.yard.worker, self.yard.compiler, build, at_most=self.random.randrange(1, 20))

    def damage(self) -> None:
        """Rows of a merged metric are changed by hand, and healed."""
        build = self.random.choice([one for one in self.yard.of_log() if one.upkeep in ("merge", "members")])
        table = f"refold_builds.{build.table_name}"
        self.yard.admin.execute(f"DELETE FROM {table} WHERE random() < 0.3".encode())
        self.yard.reconcile(deep=self.random.random() < 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_law_holds_at_every_step(yard: Yard, seed: int) -> None:
    history = History(yard, seed)
    steps: list[Callable[[], None]] = [
        history.append, history.append, history.page, history.page, history.drain, history.next_segment, history.fold,
        history.fold, history.fold, history.purge, history.settle, history.damage,
    ]  # fmt: skip
    for _ in range(STEPS):
        step = history.random.choice(steps)
        step()
        yard.look()
    yard.drain()
    yard.purge()
    yard.look()
    assert drop(yard.worker) == []
    assert yard.wrong() == {}
