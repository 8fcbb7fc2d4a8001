"""Bisection: it finds exactly what fails alone, at the logarithm of the price."""

from __future__ import annotations

from math import log2

import psycopg
import pytest

from refold.projections.transform import FunctionFailed
from refold.worker.culprits import bisect, of_an_event


def search(size: int, culprits: set[int], together: set[int] = frozenset()) -> tuple[list[int], int]:  # type: ignore[assignment]
    """What is blamed, and how many attempts it took.

    Args:
        size: how many there are.
        culprits: which fail alone.
        together: which fail only when all of them are in one part.
    """
    attempts = 0
    blamed: list[int] = []

    def attempt(part: range) -> Exception | None:
        nonlocal attempts
        attempts += 1
        fails = culprits & set(part) or (together and together <= set(part))
        return ValueError("no") if fails else None

    def halves(part: range) -> tuple[range, range] | None:
        middle = len(part) // 2
        return (part[:middle], part[middle:]) if middle else None

    bisect(range(size), attempt=attempt, halves=halves, blame=lambda part, error: blamed.append(part.start))
    return blamed, attempts


@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000, 4096])
def test_one_culprit_costs_the_logarithm(size: int) -> None:
    for culprit in {0, size // 3, size - 1}:
        blamed, attempts = search(size, {culprit})
        assert blamed == [culprit]
        assert attempts <= 2 * log2(size) + 3


def test_several_culprits_in_their_order() -> None:
    culprits = {3, 4, 400, 999}
    blamed, attempts = search(1000, culprits)
    assert blamed == sorted(culprits)
    assert attempts <= len(culprits) * (2 * log2(1000) + 3)


def test_what_fails_only_together_is_nobodys_fault() -> None:
    assert search(100, set(), {10, 90}) == ([], 3)


def test_nothing_fails() -> None:
    assert search(100, set()) == ([], 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.errors.InvalidTextRepresentation(), True),
        (psycopg.errors.DivisionByZero(), True),
        (psycopg.errors.RaiseException(), True),
        (psycopg.errors.ProgramLimitExceeded(), True),
        (psycopg.errors.CardinalityViolation(), True),
        (psycopg.DataError("refused before it was sent"), True),
        (FunctionFailed(KeyError("price")), True),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), True),
        (psycopg.errors.UndefinedFunction(), False),
        (psycopg.errors.InsufficientPrivilege(), False),
        (psycopg.errors.SerializationFailure(), False),
        (psycopg.errors.DiskFull(), False),
        (psycopg.errors.AdminShutdown(), False),
        (psycopg.OperationalError("the connection is lost"), False),
        (MemoryError(), False),
        (KeyError("a mistake of ours"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whose_fault_an_error_is(error: Exception, expected: bool) -> None:
    assert of_an_event(error) is expected
