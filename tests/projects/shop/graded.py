"""A transform: events with a grade."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from refold import Event, transform


class Graded(BaseModel):
    event_id: str
    user_id: str | None
    ts: datetime
    grade: str


@transform()
def graded(event: Event) -> Graded:
    """A purchase of a hundred or more is big."""
    metadata: dict[str, Any] = event.metadata
    grade = "big" if Decimal(str(metadata.get("amount", 0))) >= 100 else "small"
    return Graded(event_id=event.event_id, user_id=event.user_id, ts=event.ts, grade=grade)
