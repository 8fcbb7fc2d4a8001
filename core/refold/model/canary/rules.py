"""What a canary does next, given what is seen of its candidates. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

SLOWER = 2.0
"""Freshness of a candidate, in multiples of that of the live build, from which the canary is aborted."""
FRESH_ENOUGH_S = 5.0
"""Seconds: a candidate whose events are fresher is never too slow. Below it, chance decides which of two is faster."""
DEARER = 1.5
"""Time for an event, in multiples of the live build's, from which the canary is aborted if it lasts."""
WINDOW_S = 600.0
"""Seconds over which the time for an event is measured."""
LEAST_EVENTS = 1_000
"""Fewest events in that window from which a ratio is taken."""

Next = Literal["abort", "hold", "step", "promote", "wait"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of a candidate.

    Args:
        metric: its projection.
        letters: events that it left out since the canary began.
        left_out: events that it leaves out in all, if these are more than the live build does.
        violation: how it differs beyond what is expected; None if it does not, or if nothing is expected.
        fresh_s: how old its events were when it had applied them, seconds (99 of 100); None if unknown.
        live_fresh_s: the same of the live build.
        marks: events and milliseconds of both builds at the last checks, oldest first.
        impure: whether its transform gives different rows for the same event.
        held: why nothing can be said of it now, such as that it cannot be compared here.
    """

    metric: str
    letters: int = 0
    left_out: int = 0
    violation: str | None = None
    fresh_s: float | None = None
    live_fresh_s: float | None = None
    marks: Sequence[Mapping[str, Any]] = ()
    impure: bool = False
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a canary does next, and why."""

    next: Next
    because: str | None = None


def fault(seen: Seen) -> str | None:
    """Return the reason to abort that is seen of a candidate; None if there is none."""
    candidate = _of(seen.metric)
    if seen.letters > 0:
        return _cannot(seen.metric, seen.letters)
    if seen.violation is not None:
        # What is missing differs: whoever reads of the difference alone looks for it in the query.
        return f"{_cannot(seen.metric, seen.left_out) if seen.left_out else candidate}: {seen.violation}"
    if seen.impure:
        return f"{candidate} gives different rows for the same event"
    if (
        seen.fresh_s is not None
        and seen.live_fresh_s is not None
        and seen.fresh_s > max(SLOWER * seen.live_fresh_s, FRESH_ENOUGH_S)
    ):
        return f"{candidate} is {seen.fresh_s:.1f} s behind, the live build {seen.live_fresh_s:.1f} s"
    ratio = cost_ratio(seen.marks)
    if ratio is not None and ratio > DEARER:
        return f"{candidate} needs {ratio:.1f} times the time for an event that the live build needs"
    return None


def _of(metric: str) -> str:
    """Return what a reason is about: without the word, readers would look for the fault in the live metric."""
    return f"the candidate of {metric}"


def _cannot(metric: str, events: int) -> str:
    return f"{_of(metric)} cannot process {events:,} event{'s' if events > 1 else ''}"


def verdict(
    seen: Sequence[Seen], *, held: str | None, limited: int | None, soaked: bool, last: bool, judged: bool
) -> Verdict:
    """Return what a canary does next.

    Args:
        seen: what is seen of its candidates.
        held: why a person holds it; None if it runs.
        limited: to how many percent of readers it is limited, if no further step may be taken; None if one may.
        soaked: whether its step has lasted long enough.
        last: whether the step is the last one.
        judged: whether it is known which differences are expected.
    """
    faults = [told for one in seen if (told := fault(one)) is not None]
    if faults:
        return Verdict("abort", "; ".join(faults))
    if held is not None:
        return Verdict("wait", held)
    unknown = [f"{one.metric}: {one.held}" for one in seen if one.held is not None]
    if unknown:
        return Verdict("wait", "; ".join(unknown))
    if limited is not None:
        return Verdict("wait", f"it is limited to {limited} % of readers")
    if not soaked:
        return Verdict("wait", "the step has not soaked yet")
    if not last:
        return Verdict("step")
    if not judged:
        return Verdict("wait", "no --expect says which differences are right, so a person promotes it")
    return Verdict("promote")


def cost_ratio(marks: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the time for an event of the candidate in multiples of the live build's, over the window.

    None if the marks do not cover the window yet, or too few events came.
    """
    if len(marks) < 2 or marks[-1]["at"] - marks[0]["at"] < WINDOW_S:
        return None
    first, last = marks[0], marks[-1]
    spent = {
        side: (last[f"{side}_events"] - first[f"{side}_events"], last[f"{side}_ms"] - first[f"{side}_ms"])
        for side in ("candidate", "live")
    }
    if any(events < LEAST_EVENTS or ms <= 0 for events, ms in spent.values()):
        return None
    (events, ms), (live_events, live_ms) = spent["candidate"], spent["live"]
    return float((ms / events) / (live_ms / live_events))


def within_window(marks: Sequence[Mapping[str, Any]], mark: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return marks with a new one, without those that the window does not need any more.

    Marks of another live build, or from before a restart of the counters, are dropped.
    """
    kept = [
        one
        for one in marks
        if one["live"] == mark["live"]
        and one["candidate_events"] <= mark["candidate_events"]
        and one["live_events"] <= mark["live_events"]
    ]
    while len(kept) > 1 and mark["at"] - kept[1]["at"] >= WINDOW_S:
        kept.pop(0)
    return [*kept, mark]
