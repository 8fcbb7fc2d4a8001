"""Enriches each event with the segment of its user and the week of its cohort."""

import zlib
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field

from refold import Event, transform

SEGMENTS = ("bronze", "silver", "gold")


class Enriched(BaseModel):
    event_id: str
    user_id: str | None = Field(description="Who did it; null for anonymous visitors.")
    action: str = Field(description="What was done.")
    ts: datetime = Field(description="When it happened.")
    segment: str = Field(description="Segment of the user, from user_id.")
    cohort: date = Field(description="Monday (UTC) of the week in which it happened.")
    metadata: dict[str, Any] = Field(description="Everything else that the source said.")


@transform(reads="events")
def enriched_events(event: Event) -> Enriched:
    """Events with the segment of their user and the week of their cohort."""
    day = event.ts.astimezone(UTC).date()
    return Enriched(
        event_id=event.event_id,
        user_id=event.user_id,
        action=event.action,
        ts=event.ts,
        segment=segment_of(event.user_id),
        cohort=day - timedelta(days=day.weekday()),
        metadata=event.metadata,
    )


def segment_of(user_id: str | None) -> str:
    """A stable segment for a user: in a deployment of your own, whatever defines segments there."""
    if user_id is None:
        return "anonymous"
    return SEGMENTS[zlib.crc32(user_id.encode()) % len(SEGMENTS)]
