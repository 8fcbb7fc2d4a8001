"""The events that are measured with: deterministic, in blocks, so that any part can be made at any time.

Users come and go: each is active for a while, as in a shop, so a page touches some thousand of them, and ids
are random, as UUIDs are, so that unique indexes are hit all over.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from refold import SourceEvent

BLOCK = 10_000
"""Events made together."""

EVENTS_PER_USER = 10
ACTIVE_USERS = 10_000
"""Users among whom a block's events are spread."""

ACTIONS = ("view", "view", "view", "view", "cart", "search", "wishlist", "purchase")
START = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=2.6)
"""Between two events: a million of them are a month."""


def block(at: int) -> list[SourceEvent]:
    """Block number `at` (from 0) of the events, already validated."""
    rng = random.Random(f"refold {at}")
    first_user = at * BLOCK // EVENTS_PER_USER
    events = []
    for number in range(at * BLOCK, (at + 1) * BLOCK):
        late = rng.random() * 600 if rng.random() < 0.05 else 0.0
        events.append(
            SourceEvent.model_construct(
                id=f"{rng.getrandbits(128):032x}",
                user_id=f"user-{first_user + rng.randrange(ACTIVE_USERS)}",
                action=rng.choice(ACTIONS),
                ts=START + number * STEP - timedelta(seconds=late),
                metadata={"amount": rng.randrange(1, 500), "page": f"/p/{rng.randrange(2000)}"},
                version=1,
            )
        )
    return events


def events(start: int, stop: int) -> Iterator[SourceEvent]:
    """The events numbered `start` to `stop` (exclusive)."""
    for at in range(start // BLOCK, -(-stop // BLOCK)):
        made = block(at)
        yield from made[max(0, start - at * BLOCK) : stop - at * BLOCK]
