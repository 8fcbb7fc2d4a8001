"""A transform that fails for what is no number, until a test mends it; a real one would be deployed anew."""

import os
from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel

from refold import Event, transform


class Graded(BaseModel):
    event_id: str
    user_id: str | None
    ts: datetime
    grade: str


@transform()
def graded(event: Event) -> Graded:
    """Dear or cheap."""
    price = event.metadata.get("price", 0)
    if price == "free" and "REFOLD_TEST_MENDED" in os.environ:
        price = 0
    return Graded(
        event_id=event.event_id,
        user_id=event.user_id,
        ts=event.ts,
        grade="dear" if Decimal(str(price)) >= 10 else "cheap",
    )
