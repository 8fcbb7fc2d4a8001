"""Random histories in which rows go: the law holds after each step, whatever comes between."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest

from refold.engine.apply.page import apply_next_page
from refold.engine.deployment.deploy import rebuild
from refold.engine.deployment.rollback import rollback
from refold.engine.retain.let_go import let_portion_go
from refold.errors import BuildError
from refold.model.upkeep.retained import time_slicing
from refold.store import retentions
from refold.store.builds.build import live_builds
from tests.engine.retain.conftest import BY_TIME, DAYS, FIRST, PROJECT, Retained

pytestmark = pytest.mark.live("retained")

STEPS = 24


class History:
    """What happens to a database, one step after the other."""

    def __init__(self, retained: Retained, seed: int) -> None:
        self.retained, self.random = retained, random.Random(seed)

    def append(self) -> None:
        """Events of all days, also of days that are gone."""
        self.retained.append(self.random.randrange(1, 25))

    def page(self) -> None:
        """Some builds apply a page, in any order, by SQL that may be old."""
        worker, compiler = self.retained.worker, self.retained.compiler
        builds = [compiler.of(worker, one) for one in self.random.sample(live_builds(worker), 4)]
        if self.random.random() < 0.3:
            self.retain()
        for one in builds:
            apply_next_page(worker, one, self.random.randrange(1, 9))

    def drain(self) -> None:
        self.retained.drain()

    def retain(self) -> None:
        """The border of a metric moves forward, to the end or by a portion."""
        name = self.random.choice(BY_TIME)
        first = FIRST + timedelta(days=self.random.randrange(DAYS))
        if self.random.random() < 0.5:
            self.retained.retain(name, first, rows=self.random.choice([1, 5, 1000]))
            return
        build = self.retained.build(name)
        slicing = time_slicing(self.retained.compiler.of(self.retained.worker, build).plan)
        assert slicing is not None
        number = (first - type(first)(1970, 1, 1)).days
        let_portion_go(self.retained.worker, self.retained.compiler, build, number, rows=1)

    def rebuild(self) -> None:
        """A metric is built again: with the days that it is to keep, or with all."""
        name = self.random.choice(BY_TIME)
        if self.random.random() < 0.5:
            retentions.forget(self.retained.worker, name)
        rebuild(self.retained.worker, PROJECT, [name], lambda progress: None)

    def rollback(self) -> None:
        # There may be nothing to go back to.
        with suppress(BuildError):
            rollback(self.retained.worker, PROJECT, self.random.choice(BY_TIME), lambda progress: None)

    def damage(self) -> None:
        """Rows are deleted, or changed, by hand, and healed."""
        table = self.retained.build(self.random.choice(BY_TIME)).table_name
        self.retained.admin.execute(f"DELETE FROM refold_builds.{table} WHERE random() < 0.3".encode())
        self.retained.reconcile(self.random.choice(["slice", "deep"]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_law_holds_at_every_step(retained: Retained, seed: int) -> None:
    history = History(retained, seed)
    steps: list[Callable[[], None]] = [
        history.append, history.append, history.page, history.page, history.page, history.drain, history.retain,
        history.retain, history.rebuild, history.rollback, history.damage,
    ]  # fmt: skip
    for _ in range(STEPS):
        step = history.random.choice(steps)
        step()
        retained.look()
    retained.drain()
    retained.look()
    assert retained.wrong() == {}
