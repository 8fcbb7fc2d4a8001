"""Finding culprits: exactly those that fail next to all before them, at the logarithm of the price."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import pytest

from refold.engine.isolate.search import Portion, first_failing, sift
from refold.model.projection.failure import FunctionFailed
from refold.store.builds.dead_letters import described


def search(
    size: int, culprits: set[int], together: Sequence[set[int]] = (), most: int = 10**6
) -> tuple[list[int], int, int]:
    """What is blamed, how many attempts it took, and how many rows are done.

    Args:
        size: how many there are.
        culprits: which fail alone.
        together: which fail only when all of them have been applied.
        most: blames that are enough.
    """
    attempts = 0
    applied: set[int] = set()
    blamed: list[int] = []

    def at() -> int:
        return len(applied) + len(blamed)

    def attempt(count: int) -> Exception | None:
        nonlocal attempts
        attempts += 1
        part = set(range(at(), at() + count))
        assert 0 < count <= size - at()
        if culprits & part or any(group <= applied | part for group in together):
            return ValueError("no")
        applied.update(part)
        return None

    done = sift(size, attempt=attempt, blame=lambda error: blamed.append(at()), enough=lambda: len(blamed) >= most)
    assert applied | set(blamed) == set(range(done))
    return blamed, attempts, done


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 4096])
def test_one_culprit_costs_the_logarithm(size: int) -> None:
    for culprit in {0, size // 3, size - 1}:
        blamed, attempts, _ = search(size, {culprit})
        assert blamed == [culprit]
        assert attempts <= 2 * log2(size) + 3


def test_several_culprits_in_their_order() -> None:
    culprits = {3, 4, 400, 999}
    blamed, attempts, _ = search(1000, culprits)
    assert blamed == sorted(culprits)
    assert attempts <= len(culprits) * (2 * log2(1000) + 3)


def test_thousands_cost_a_few_attempts_each() -> None:
    """They are not looked for from nothing each time."""
    assert search(4000, set(range(4000)))[1] <= 4000 + log2(4000) + 2
    assert search(4000, set(range(0, 4000, 2)))[1] <= 3 * 2000 + log2(4000) + 2
    assert search(4000, set(range(0, 4000, 100)))[1] <= 40 * (2 * log2(100) + 3)


def test_of_those_that_fail_only_together_the_last_one_goes() -> None:
    assert search(100, set(), [{10, 90}])[0] == [90]
    assert search(100, {20}, [{10, 20}, {30, 31}, {31, 40}, {50, 60, 70}])[0] == [20, 31, 70]


def test_a_portion_is_enough() -> None:
    blamed, _, done = search(1000, {5, 6, 7, 500}, most=2)
    assert (blamed, done) == ([5, 6], 7)


def test_what_fails_no_more_is_applied() -> None:
    """An error that does not come again (a lock, a function that has been mended) is nobody's fault."""
    assert search(100, set())[::2] == ([], 100)


def test_the_shortest_prefix_that_fails() -> None:
    for size, first in ((1, 1), (2, 2), (100, 1), (100, 37), (100, 100)):
        for passes in {0, first - 1}:
            fails = {count: ValueError("no") for count in range(first, size + 1)}
            number, _ = first_failing(size, fails.get, passes=passes)
            assert number == first


def test_a_portion_ends_in_time() -> None:
    found: list[int] = []
    portion = Portion(found, most=3, seconds=0.0)
    assert not portion.enough()
    found.append(1)
    assert portion.enough()
    assert not Portion(found, most=2, seconds=1000.0).enough()
    found.append(2)
    assert Portion(found, most=2, seconds=1000.0).enough()


def test_an_error_that_quotes_a_long_value_can_be_read() -> None:
    cause = ValueError("no number: " + "[" * 1_000_000)
    failed = FunctionFailed(cause)
    failed.__cause__ = cause
    told = described(failed)
    assert told.startswith("ValueError: no number: [[[")
    assert told.endswith("[[[… (1,000,023 characters)")
    assert len(told) < 350
