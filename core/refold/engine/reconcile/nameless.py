"""Healing that removes a person, and must not write the person into the records of what it did.

Repairs and incidents keep keys and rows, by which a person is found. Whoever heals what an erasure has changed lets
them keep counts only, in the transactions that heal: nobody could find the person in them later. And what an erasure
has changed on purpose is no fault: it opens no incident, which would tell people of drift that nobody has to look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_REPAIRS: ContextVar[bool] = ContextVar("nameless_repairs", default=False)
_INCIDENTS: ContextVar[bool] = ContextVar("nameless_incidents", default=False)
_EXPECTED: ContextVar[bool] = ContextVar("expected_drift", default=False)


@contextmanager
def nameless(*, repairs: bool = True, incidents: bool = True, expected: bool = False) -> Iterator[None]:
    """Let what is recorded in the block keep counts only.

    Args:
        repairs: whether repairs do.
        incidents: whether incidents do.
        expected: whether the block heals what was changed on purpose: no incident is opened unless that fails.
    """
    of_repairs, of_incidents = _REPAIRS.set(repairs), _INCIDENTS.set(incidents)
    of_expected = _EXPECTED.set(expected)
    try:
        yield
    finally:
        _REPAIRS.reset(of_repairs)
        _INCIDENTS.reset(of_incidents)
        _EXPECTED.reset(of_expected)


def repairs_are_nameless() -> bool:
    """Return whether repairs keep counts only."""
    return _REPAIRS.get()


def incidents_are_nameless() -> bool:
    """Return whether incidents keep counts only."""
    return _INCIDENTS.get()


def drift_is_expected() -> bool:
    """Return whether drift was made on purpose, and opens no incident if it can be healed."""
    return _EXPECTED.get()
