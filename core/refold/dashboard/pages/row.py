"""`/metrics/NAME/row?key=…`: the events behind a row, and the row counted again from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from refold.dashboard.ask import Ask, NotThere
from refold.dashboard.pages.explained import Explained, explained
from refold.inspect.health import BuildHealth, Health
from refold.inspect.lineage.why import Answer, why
from refold.suggest import did_you_mean

SHOWN = 20
"""Events that are shown at first."""
MOST = 500
"""Most events that are shown."""


@dataclass(frozen=True, slots=True)
class RowPage:
    """What the page shows.

    Args:
        health: the health of all metrics.
        build: that of the metric.
        key: the key of the row; None is NULL.
        key_text: the key as the address has it.
        why: the answer.
        shown: most events that are shown.
    """

    health: Health
    build: BuildHealth
    key: Mapping[str, str | None]
    key_text: str
    why: Explained[Answer]
    shown: int

    @property
    def sentence(self) -> str:
        """Return what the counting says, in a sentence."""
        answer = self.why.answer
        if answer is None:
            return ""
        if answer.standing:
            return "The event behind this row was purged from the log. The row stands as it was made."
        events = "One event is" if answer.events == 1 else f"{answer.events:,} events are"
        if answer.purged:
            one = "One event" if answer.events == 1 else f"{answer.events:,} events"
            events = f"{one} of the log and the base of the metric are"
        if not answer.same:
            return f"{events} behind this row, and they make something else."
        return f"{events} behind this row. Counted again, they make the same."


def read(ask: Ask) -> RowPage:
    """Read the page.

    Raises:
        NotThere: there is no such metric, or no such row.
        SignInFirst: this request may not see events.
    """
    ask.insist()
    health = ask.health()
    name = ask.path["name"]
    build = health.metric(name)
    if build is None:
        raise NotThere(f"No metric is called {name}.{did_you_mean(name, [one.metric for one in health.live])}")
    text = ask.query.get("key", "{}")
    key = key_of(text)
    shown = ask.number("shown", SHOWN, MOST)
    answer = explained(ask, lambda conn, bound: why(conn, ask.compiler, name, key, shown=shown, bound=bound))
    return RowPage(health, build, key, text, answer, shown)


def key_of(text: str) -> dict[str, str | None]:
    """Return the key that an address holds: a JSON object of columns and their values as texts, null for NULL. Pure.

    Raises:
        NotThere: it is no such object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or any(isinstance(one, dict | list) for one in found.values()):
        raise NotThere('Write the key as in: key={"day": "2026-03-02", "action": "buy", "segment": null}')
    return {name: one if one is None or isinstance(one, str) else json.dumps(one) for name, one in found.items()}
