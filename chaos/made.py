"""The events of the campaign: numbered by their producer, some late, some early, some wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from chaos.contracts import BREAKING, ENFORCED
from chaos.journal import Event

USERS = 300
"""Users who are active at a time."""
STAY_S = 300
"""Seconds after which others are.

What is recomputed by user costs as much as all that the users of a page ever did: with the same ones for ever, each
page of such a metric would read the whole log in the end.
"""
EMAIL = "email"
"""A field of metadata in which an event of somebody else may name a person."""
ACTIONS = ("view", "view", "view", "cart", "cart", "purchase", "signup")


def person(number: int) -> str:
    """The user id of a person who will be erased; it is a part of nothing else."""
    return f"somebody-{number:03}"


class Maker:
    """Makes one producer's events.

    Args:
        producer: its name, the first part of every id.
        random: decides their content.
        start: number of the first.
    """

    def __init__(self, producer: str, random: Random, start: int = 0) -> None:
        self._producer = producer
        self._random = random
        self._made = start
        self._sent: list[Event] = []

    def batch(self, size: int) -> list[Event]:
        """New events, now and then one that is wrong or breaks its contract, and one that was sent before."""
        events = []
        for _ in range(size):
            drawn = self._random.random()
            if drawn < 0.01:
                events.append(self._invalid())
            elif drawn < 0.02 and self._sent:
                events.append(self._again(self._random.choice(self._sent)))
            elif drawn < 0.03 and self._sent:
                events.append(self._conflict(self._random.choice(self._sent)))
            elif drawn < 0.04:
                events.append(self.scored(ENFORCED, breaking=True, invalid=True))
            elif drawn < 0.08:
                events.append(self.scored(ENFORCED))
            else:
                events.append(self.event())
        return events

    def clean(self, size: int) -> list[Event]:
        """New events, all of them good."""
        return [self.event() for _ in range(size)]

    def scored(self, action: str, *, breaking: bool = False, **more: str | bool) -> Event:
        """An event of an action that has a contract.

        Args:
            action: the action.
            breaking: whether it breaks the contract.
            more: for its metadata.
        """
        score = self._random.choice(BREAKING) if breaking else {"score": self._random.randint(1, 5)}
        event = self.event()
        return event | {"action": action, "metadata": {"label": event["metadata"]["label"], **score, **more}}

    def purchases(self, user: str, weights: Sequence[int]) -> list[Event]:
        """What one user buys, one thing of each weight, now."""
        made = self.clean(len(weights))
        for event, weight in zip(made, weights, strict=True):
            amount = f"{self._random.randint(1, 30_000) / 100:.2f}"
            event |= {"user_id": user, "action": "purchase", "ts": datetime.now(UTC).isoformat()}
            event["metadata"] |= {"amount": amount, "weight": weight}
        return made

    def remember(self, events: list[Event]) -> None:
        """Takes note of events that are in the log, of which duplicates and conflicts can be made."""
        self._sent = (self._sent + [e for e in events if not e["metadata"].get("invalid")])[-500:]

    def event(self) -> Event:
        """The next event."""
        random = self._random
        action = random.choice(ACTIONS)
        happened = datetime.now(UTC)
        drawn = random.random()
        if drawn < 0.1:
            happened -= timedelta(seconds=random.randint(1, 400 * 86_400))
        elif drawn < 0.12:
            happened += timedelta(seconds=random.randint(1, 3 * 86_400))
        metadata: dict[str, str | int] = {"label": self._label()}
        if action == "purchase":
            metadata["amount"] = f"{random.randint(1, 30_000) / 100:.2f}"
            metadata["weight"] = random.randint(1, 9)
        return {
            "id": f"{self._producer}-{self._made}",
            "user_id": f"user-{int(datetime.now(UTC).timestamp()) // STAY_S}-{random.randrange(USERS)}",
            "action": action,
            "ts": happened.isoformat(),
            "metadata": metadata,
        }

    def _label(self) -> str:
        """Tells apart what has the same id: two contents, or none that is usable."""
        self._made += 1
        return f"{self._producer}/{self._made}/"

    @staticmethod
    def _again(event: Event) -> Event:
        return dict(event)

    def _conflict(self, event: Event) -> Event:
        return {**event, "metadata": {**event["metadata"], "label": self._label()}}

    def _invalid(self) -> Event:
        """An event that must be rejected: no such day, no action, a time without end."""
        event = self.event()
        event["metadata"] = {"label": event["metadata"]["label"], "invalid": True}
        name, value = self._random.choice([("ts", "2026-02-30T00:00:00Z"), ("action", ""), ("ts", "infinity")])
        return {**event, name: value}
