"""Levels of pressure, and how they change with what is measured: with hysteresis, so that they do not flap. Pure."""

from __future__ import annotations

from enum import IntEnum


class Level(IntEnum):
    """How much the producers are asked to hold back."""

    fine = 0
    slow = 1
    """Bulk waits, so that live events stay fresh."""
    stop = 2
    """Live events are refused, too, with the time after which to send them again."""


def next_level(level: Level, value: float, *, slow: float, stop: float, back: float) -> Level:
    """Return the level after a measurement.

    A level is reached at its mark. It is left for a lower one only below `back`, or, from `stop`, below `slow`.

    Args:
        level: level so far.
        value: what was measured.
        slow: value from which bulk waits.
        stop: value from which nothing more is taken.
        back: value below which all is well again; less than `slow`.
    """
    if value >= stop:
        return Level.stop
    if value >= slow:
        return max(level, Level.slow)
    if value >= back:
        return min(level, Level.slow)
    return Level.fine
