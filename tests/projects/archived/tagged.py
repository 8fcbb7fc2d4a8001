"""A transform that leaves events out."""

from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel

from refold import Event, transform


class Tagged(BaseModel):
    event_id: str
    user_id: str | None
    ts: datetime
    tag: str
    weight: Decimal | None


@transform()
def tagged(event: Event) -> Tagged | None:
    """Events that are no noise, with a tag."""
    if event.action == "noise":
        return None
    number = event.metadata.get("n")
    return Tagged(
        event_id=event.event_id,
        user_id=event.user_id,
        ts=event.ts,
        tag=f"{event.action}-{len(event.user_id or '')}",
        weight=None if number is None else Decimal(str(number)),
    )
