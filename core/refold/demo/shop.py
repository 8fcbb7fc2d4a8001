"""A simulated shop: visitors who view, put into the cart and purchase, and the messages about their actions.

Pure, and deterministic by its seed. A `Step` is an action, and a `Delivery` is a message about it. Most arrive at once,
some hours late and out of order, some twice, and a few contradictory or broken.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

from refold.model.event.source_event import Answer

Action = Literal["view", "cart", "purchase"]

TODAY = date(2025, 11, 28)
"""The simulated day, a Black Friday."""
MIDNIGHT = datetime.combine(TODAY, time(), UTC)
LATE_S = 600.0
"""Seconds after which a delivery counts as late."""

DAY_S = 86_400.0
"""Seconds of a day."""
# The shop closes at eleven, so no visit continues on the next day.
_VISITS_BY_HOUR = (3, 2, 1, 1, 1, 2, 4, 7, 9, 10, 11, 12, 13, 12, 11, 11, 12, 14, 17, 20, 22, 18, 11)
_PRODUCTS = (
    ("kettle", 39.9),
    ("teapot", 24.5),
    ("espresso machine", 489.0),
    ("grinder", 129.0),
    ("cups, set of six", 32.0),
    ("filter papers", 4.9),
    ("descaler", 8.75),
    ("milk jug", 18.0),
)


@dataclass(frozen=True, slots=True)
class Step:
    """An action of a visitor, from which the shop computes its own count.

    Args:
        id: id of the event.
        user: id of the user; None for an anonymous visitor.
        action: the action.
        at: time of the action, UTC, in whole milliseconds.
        metadata: product, amount and other attributes.
    """

    id: str
    user: str | None
    action: Action
    at: datetime
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that reaches the shop's server.

    Args:
        at: time of arrival, seconds since midnight.
        event: its content, as a producer appends it to the log.
        fate: the answer that the log must give.
        late: whether the event happened long before.
    """

    at: float
    event: dict[str, Any]
    fate: Answer
    late: bool


@dataclass(frozen=True, slots=True)
class Day:
    """The steps of a day, in no particular order, and its deliveries, in order of arrival."""

    steps: tuple[Step, ...]
    deliveries: tuple[Delivery, ...]


def day(seed: int, deliveries: int) -> Day:
    """Make up a day with an exact number of deliveries.

    Args:
        seed: seed of the day; the same seed and number give the same day.
        deliveries: number of deliveries, at least 200.
    """
    dice = random.Random(f"day {seed}")
    conflicts = max(3, deliveries // 2500)
    invalid = max(len(_MISTAKES), deliveries // 2000)
    duplicates = deliveries // 25
    visits = _visits(dice, deliveries - conflicts - invalid - duplicates)
    steps = [step for visit in visits for step in visit]
    arrivals = [one for visit in visits for one in _deliver(dice, visit)]
    # Append duplicates after the originals: sorting is stable for equal times of arrival.
    arrivals += [_again(dice, one) for one in dice.choices(arrivals, k=duplicates)]
    purchases = [one for one in arrivals if one.event["action"] == "purchase" and one.fate is Answer.accepted]
    arrivals += [_contradicted(dice, dice.choice(purchases)) for _ in range(conflicts)]
    arrivals += [_broken(dice, number) for number in range(invalid)]
    return Day(tuple(steps), tuple(sorted(arrivals, key=lambda one: one.at)))


def train(seed: int, number: int, size: int) -> Day:
    """Make up a train that leaves a tunnel in the evening, so that many phones report at once.

    Args:
        seed: seed of the shop.
        number: number of the train; each has its own steps.
        size: number of deliveries, all of them new.
    """
    dice = random.Random(f"train {seed} {number}")
    steps: list[Step] = []
    while len(steps) < size:
        start = MIDNIGHT + timedelta(milliseconds=dice.randrange(79_000_000, 82_000_000))
        steps += _visit(dice, f"t{number}-{len(steps):05}", start, _customers(size))
    del steps[size:]
    dice.shuffle(steps)
    return Day(tuple(steps), tuple(Delivery(DAY_S - 1, _mobile(step), Answer.accepted, True) for step in steps))


def _visits(dice: random.Random, steps: int) -> list[list[Step]]:
    """Return visits with an exact total number of steps."""
    visits: list[list[Step]] = []
    missing = steps
    while missing:
        hour = dice.choices(range(23), _VISITS_BY_HOUR)[0]
        start = MIDNIGHT + timedelta(hours=hour, milliseconds=dice.randrange(3_000_000))
        if dice.random() < 0.02:
            # Yesterday evening, on a phone that comes online today.
            start = MIDNIGHT - timedelta(milliseconds=dice.randrange(3_600_000, 14_400_000))
        visit = _visit(dice, f"v{len(visits):06}", start, _customers(steps))[:missing]
        missing -= len(visit)
        visits.append(visit)
    return visits


def _customers(steps: int) -> int:
    return max(20, steps // 6)


def _visit(dice: random.Random, name: str, start: datetime, customers: int) -> list[Step]:
    """Return the steps of a visit: view, cart, purchase; a visitor may leave at any of them."""
    # Regulars come often, most come once.
    user = f"user-{int(customers * dice.random() ** 1.7):05}" if dice.random() > 0.08 else None
    made: list[Step] = []
    now = start

    def did(action: Action, **metadata: Any) -> None:
        nonlocal now
        made.append(Step(f"{name}-{len(made)}", user, action, now, metadata))
        now += timedelta(milliseconds=dice.randrange(4_000, 90_000))

    if dice.random() < 0.04:
        # A repeat order from a link in a mail: a purchase outside the funnel.
        product, price = dice.choice(_PRODUCTS)
        did("purchase", product=product, amount=price)
        return made
    amount = 0.0
    for _ in range(1 + min(8, int(dice.expovariate(0.5)))):
        product, price = dice.choice(_PRODUCTS)
        did("view", product=product)
        if dice.random() < 0.18:
            quantity = dice.choice((1, 1, 1, 2, 3))
            amount = round(amount + price * quantity, 2)
            did("cart", product=product, quantity=quantity)
    if amount and dice.random() < 0.4:
        did("purchase", amount=amount, paid_with=dice.choice(("card", "invoice", "voucher")))
    return made


def _deliver(dice: random.Random, visit: Sequence[Step]) -> Iterator[Delivery]:
    """Yield the deliveries of a visit: from a browser, a phone, or a phone that was offline."""
    yesterday = visit[0].at < MIDNIGHT
    device = dice.random()
    if yesterday or device < 0.06:
        end = _second_of_day(visit[-1].at)
        back = dice.uniform(0.0, 0.4 * DAY_S) if yesterday else end + dice.uniform(1_200, 25_000)
        for step in dice.sample(visit, len(visit)):
            yield _delivery(back + dice.uniform(0, 3), step, _mobile(step))
    elif device < 0.45:
        for step in visit:
            yield _delivery(_second_of_day(step.at) + dice.uniform(0.5, 40), step, _mobile(step))
    else:
        for step in visit:
            yield _delivery(_second_of_day(step.at) + dice.uniform(0.05, 2), step, _web(step))


def _delivery(at: float, step: Step, event: dict[str, Any]) -> Delivery:
    arrives = min(at, DAY_S - 1)
    return Delivery(arrives, event, Answer.accepted, arrives - _second_of_day(step.at) > LATE_S)


def _web(step: Step) -> dict[str, Any]:
    """Return the event of a step as the shop's web server writes it: with ISO 8601."""
    return _event(step, step.at.isoformat(timespec="milliseconds"), "web")


def _mobile(step: Step) -> dict[str, Any]:
    """Return the event of a step as the app writes it: with epoch milliseconds."""
    return _event(step, (step.at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1), "app")


def _event(step: Step, ts: str | int, device: str) -> dict[str, Any]:
    return {
        "id": step.id,
        "user_id": step.user,
        "action": step.action,
        "ts": ts,
        "metadata": {**step.metadata, "device": device},
    }


def _again(dice: random.Random, original: Delivery) -> Delivery:
    """Return a repeated delivery: the client lost the reply and sends it again."""
    at = min(original.at + dice.uniform(1, 1_200), DAY_S - 1)
    return Delivery(at, original.event, Answer.duplicate, original.late)


def _contradicted(dice: random.Random, original: Delivery) -> Delivery:
    """Return a delivery of an event with the same id and another amount, which is a conflict."""
    metadata = original.event["metadata"]
    metadata = {**metadata, "amount": round(metadata["amount"] + dice.randrange(1, 50), 2)}
    at = min(original.at + dice.uniform(30, 900), DAY_S - 1)
    return Delivery(at, {**original.event, "metadata": metadata}, Answer.conflict, original.late)


_Mistake = Callable[[dict[str, Any]], dict[str, Any]]
_MISTAKES: tuple[_Mistake, ...] = (
    lambda event: {**event, "ts": "2025-11-28T14:30:00"},  # no offset: which 14:30?
    lambda event: {name: value for name, value in event.items() if name != "action"},
    lambda event: {**event, "id": ""},
    lambda event: {**event, "ts": "yesterday"},
    lambda event: {**event, "userid": event["user_id"]},
)


def _broken(dice: random.Random, number: int) -> Delivery:
    """Return an invalid message, from a client with a bug."""
    at = dice.uniform(0, DAY_S - 1)
    step = Step(f"broken-{number}", "user-00000", "view", MIDNIGHT + timedelta(seconds=int(at)), {})
    return Delivery(at, _MISTAKES[number % len(_MISTAKES)](_web(step)), Answer.invalid, False)


def _second_of_day(at: datetime) -> float:
    return (at - MIDNIGHT).total_seconds()
