"""Verdicts, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from refold.inspect.verdict import PROOFS_DUE_S, Known, Word, headline, verdict

FINE: dict[str, Any] = {
    "damaged": False,
    "drift": False,
    "hidden": False,
    "proved_s": 42.0,
    "left_out": 0,
    "lag_s": 0.0,
    "lag_limit_s": 60.0,
}


@pytest.mark.parametrize(
    ("known", "word"),
    [
        ({}, "right"),
        ({"proved_s": PROOFS_DUE_S}, "right"),
        ({"proved_s": PROOFS_DUE_S + 0.1}, "unproved"),
        ({"proved_s": None}, "unproved"),
        ({"lag_s": 60.0}, "right"),
        ({"lag_s": 60.1}, "late"),
        ({"lag_s": None}, "late"),
        ({"left_out": 1}, "incomplete"),
        ({"drift": True}, "wrong"),
        ({"hidden": True}, "wrong"),
        ({"damaged": True}, "wrong"),
        # The worst counts.
        ({"left_out": 1, "lag_s": 99.0}, "incomplete"),
        ({"left_out": 1, "proved_s": None}, "unproved"),
        ({"lag_s": 99.0, "proved_s": None}, "unproved"),
        ({"drift": True, "proved_s": None, "left_out": 1, "lag_s": 99.0}, "wrong"),
    ],
)
def test_verdict(known: dict[str, Any], word: Word) -> None:
    assert verdict(Known(**FINE | known)) == word


@pytest.mark.parametrize(
    ("words", "left_out", "first", "second"),
    [
        ([], 0, "There is no metric yet.", ""),
        (["right"], 0, "The metric equals the log.", ""),
        (["right"] * 5, 0, "All five metrics equal the log.", ""),
        (["right"] * 1000, 0, "All 1,000 metrics equal the log.", ""),
        (["right", "incomplete"], 2, "All two metrics equal the log.", "Two events are known to be missing."),
        (["incomplete"], 1, "The metric equals the log.", "One event is known to be missing."),
        (["right", "late"], 0, "All two metrics equal the log.", "One metric is late."),
        (["unproved"] * 3, 0, "Three metrics are not proved.", ""),
        (["unproved", "right"], 0, "One metric is not proved.", "One metric equals the log."),
        (["wrong"], 0, "One metric is wrong.", ""),
        (
            ["wrong", "unproved", "right", "incomplete"], 12, "One metric is wrong.",
            "One metric is not proved. Two metrics equal the log. 12 events are known to be missing.",
        ),
    ],
)  # fmt: skip
def test_headline(words: list[Word], left_out: int, first: str, second: str) -> None:
    found = headline(words, left_out)
    assert (found.first, found.second) == (first, second)


def test_equal_is_said_only_of_proved_metrics() -> None:
    for words in (["unproved"], ["wrong"], ["wrong", "unproved"]):
        found = headline(words, 0)  # type: ignore[arg-type]
        assert "equal" not in found.first + found.second
