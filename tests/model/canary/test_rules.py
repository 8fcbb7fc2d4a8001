"""Which differences are expected, and what a canary does next."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from refold.errors import InputError
from refold.model.canary.expect import Difference, parse
from refold.model.canary.rules import Seen, cost_ratio, verdict, within_window

SAME = Difference(True, True, frozenset(), 1_000_000, 0, 0, 0, None)
DAY = (date(2026, 3, 1) - date(1970, 1, 1)).days
ONE = replace(SAME, same=False, columns=frozenset({"users"}), modified=1, first_day=DAY)


@pytest.mark.parametrize(
    ("texts", "found", "allowed"),
    [
        (["identical"], SAME, True),
        (["identical"], ONE, False),
        (["columns: users"], ONE, True),
        (["columns: users, events"], ONE, True),
        (["columns: events"], ONE, False),
        (["columns: users"], replace(ONE, added=1), False),
        (["modified <= 1 %"], ONE, True),
        (["modified <= 0.0001 %"], ONE, True),
        (["modified <= 0.00009%"], ONE, False),
        (["modified <= 1 %"], replace(ONE, removed=1), False),
        (["modified <= 1 %"], replace(ONE, modified=10_001), False),
        (["days >= 2026-03-01"], replace(ONE, added=5, removed=7), True),
        (["days >= 2026-03-02"], ONE, False),
        (["days >= 2026-03-01"], replace(ONE, first_day=None), False),
        (["days >= 2026-03-01", "columns: events"], ONE, False),
        (["columns: users"], replace(ONE, comparable=False), False),
    ],
)
def test_expectations(texts: list[str], found: Difference, allowed: bool) -> None:
    expected = parse(texts)
    assert expected is not None
    assert (expected.violation(found) is None) == allowed


@pytest.mark.parametrize(
    "texts",
    [
        ["identicl"],
        ["modified < 1 %"],
        ["days >= 2026-02-30"],
        ["identical", "columns: a"],
        ["columns: a", "columns: b"],
    ],
)
def test_expectations_that_mean_nothing(texts: list[str]) -> None:
    with pytest.raises(InputError):
        parse(texts)


def judge(seen: Seen, **options: Any) -> tuple[str, str | None]:
    found = verdict([seen], **{"held": None, "limited": None, "soaked": True, "last": True, "judged": True, **options})
    return found.next, found.because


def test_what_comes_next() -> None:
    fine = Seen("m")
    assert judge(fine) == ("promote", None)
    assert judge(fine, last=False) == ("step", None)
    assert judge(fine, soaked=False)[0] == judge(fine, judged=False)[0] == judge(fine, held="I look")[0] == "wait"
    assert judge(fine, limited=10) == ("wait", "it is limited to 10 % of readers")
    assert judge(replace(fine, held="it is loading"), last=False) == ("wait", "m: it is loading")
    for wrong in (
        Seen("m", letters=1), Seen("m", violation="other columns differ"), Seen("m", impure=True),
        Seen("m", fresh_s=20.0, live_fresh_s=9.0),
    ):  # fmt: skip
        assert judge(wrong, soaked=False, limited=0, held="I look")[0] == "abort"
    assert judge(Seen("m", fresh_s=4.0, live_fresh_s=0.1))[0] == "promote"
    assert judge(Seen("m", fresh_s=20.0))[0] == "promote"


def mark(at: float, events: int, ms: float, live_ms: float, live: int = 1) -> dict[str, Any]:
    return {
        "at": at, "live": live, "candidate_events": events, "candidate_ms": ms, "live_events": events,
        "live_ms": live_ms,
    }  # fmt: skip


def test_the_time_for_an_event_counts_over_ten_minutes() -> None:
    marks: list[Any] = []
    for minute in range(12):
        marks = within_window(marks, mark(60.0 * minute, 1000 * minute, 16.0 * minute, 10.0 * minute))
        assert (cost_ratio(marks) is None) == (minute < 10)
    assert cost_ratio(marks) == pytest.approx(1.6)
    assert judge(Seen("m", marks=marks), soaked=False)[0] == "abort"
    assert len(marks) == 11
    assert cost_ratio([mark(0, 0, 0, 0), mark(600, 999, 99, 9)]) is None
    # Another live build: the window begins again.
    assert len(within_window(marks, mark(720, 12_000, 0, 0, live=2))) == 1
