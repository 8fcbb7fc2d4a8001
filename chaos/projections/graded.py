"""A transform: every event with a grade."""

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
    """What costs a hundred or more is big."""
    amount = Decimal(event.metadata.get("amount", "0"))
    return Graded(
        event_id=event.event_id, user_id=event.user_id, ts=event.ts, grade="big" if amount >= 100 else "small"
    )
