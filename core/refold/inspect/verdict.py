"""Verdicts: what may be said of a metric, from what is known of it. Pure.

The worst that is known counts. *Right* is never a default: it takes a recent proof, and nothing known against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Word = Literal["wrong", "unproved", "incomplete", "late", "right"]
WORDS: tuple[Word, ...] = get_args(Word)
"""Worst first."""

PROOF_INTERVAL_S = 60.0
"""Seconds between two quick audits of a metric."""
PROOFS_DUE_S = 3 * PROOF_INTERVAL_S
"""Age in seconds up to which a proof counts."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one live metric.

    Args:
        damaged: the log is damaged, or the cursors belong to another cluster: nothing can be said of any metric.
        drift: rows that differ from the query were found, and are not healed.
        hidden: analysts read something else under the metric's name.
        proved_s: age of the newest proof of it and of all that it reads, seconds; None: not proved.
        left_out: events that it leaves out, as dead letters that wait or were dropped.
        lag_s: age of the oldest event that it has not applied, seconds; None: its first load is not done.
        lag_limit_s: seconds that it may be behind.
    """

    damaged: bool
    drift: bool
    hidden: bool
    proved_s: float | None
    left_out: int
    lag_s: float | None
    lag_limit_s: float


def verdict(known: Known) -> Word:
    """Return the verdict on a metric."""
    if known.damaged or known.drift or known.hidden:
        return "wrong"
    if known.proved_s is None or known.proved_s > PROOFS_DUE_S:
        return "unproved"
    if known.left_out:
        return "incomplete"
    if known.lag_s is None or known.lag_s > known.lag_limit_s:
        return "late"
    return "right"


@dataclass(frozen=True, slots=True)
class Headline:
    """The sentences above all metrics.

    Args:
        word: the worst verdict; None without a metric.
        first: what is known of them all.
        second: what is known against it; empty if nothing is.
    """

    word: Word | None
    first: str
    second: str


def headline(words: Sequence[Word], left_out: int) -> Headline:
    """Return what may be said of all metrics together.

    That metrics equal the log is said only of those with a recent proof.

    Args:
        words: the verdicts.
        left_out: events that metrics leave out, together.
    """
    if not words:
        return Headline(None, "There is no metric yet.", "")
    number = {word: sum(one == word for one in words) for word in WORDS}
    worst = next(word for word in WORDS if number[word])
    missing = ""
    if left_out:
        events = "event is" if left_out == 1 else "events are"
        missing = f"{_number(left_out).capitalize()} {events} known to be missing."
    late = f"{_metrics(number['late'])} {_is(number['late'])} late." if number["late"] else ""
    if number["wrong"]:
        rest = len(words) - number["wrong"]
        return Headline(
            worst,
            f"{_metrics(number['wrong'])} {_is(number['wrong'])} wrong.",
            "" if not rest else _others(number, missing, late),
        )
    if number["unproved"]:
        return Headline(
            worst,
            f"{_metrics(number['unproved'])} {_is(number['unproved'])} not proved.",
            "" if number["unproved"] == len(words) else _others(number, missing, late),
        )
    every = "The metric equals" if len(words) == 1 else f"All {_number(len(words))} metrics equal"
    return Headline(worst, f"{every} the log.", " ".join(filter(None, (missing, late))))


def _others(number: dict[Word, int], missing: str, late: str) -> str:
    proved = number["incomplete"] + number["late"] + number["right"]
    equal = f"{_metrics(proved)} {'equals' if proved == 1 else 'equal'} the log." if proved else ""
    unproved = (
        f"{_metrics(number['unproved'])} {_is(number['unproved'])} not proved."
        if number["wrong"] and number["unproved"]
        else ""
    )
    return " ".join(filter(None, (unproved, equal, missing, late)))


_SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _number(number: int) -> str:
    return _SMALL[number] if number < len(_SMALL) else f"{number:,}"


def _metrics(number: int) -> str:
    return f"{_number(number).capitalize()} metric{'' if number == 1 else 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"
