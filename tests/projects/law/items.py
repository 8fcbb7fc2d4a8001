"""A transform that makes several rows of an event, or none."""

from datetime import datetime

from pydantic import BaseModel

from refold import Event, transform


class Item(BaseModel):
    user_id: str | None
    ts: datetime
    item: str
    place: int


@transform()
def items(event: Event) -> list[Item]:
    """The items of an event, in their order."""
    return [
        Item(user_id=event.user_id, ts=event.ts, item=item, place=place)
        for place, item in enumerate(event.metadata.get("items", []))
    ]
