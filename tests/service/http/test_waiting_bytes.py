"""The bytes of every kind of body count while its events wait for their commit."""

from __future__ import annotations

import json
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import psycopg
import pytest

from tests.support.door import Reply, Served

Connection = psycopg.Connection[Any]

PADDING = b" " * (14 * 2**20)
"""White space makes a body large without making its event large."""
BODIES = 7
"""More than fit into a queue of 64 MiB, with one that is being committed."""


def plain(number: int) -> dict[str, Any]:
    return {"id": str(number), "action": "view", "ts": "2026-03-01T10:00:00Z"}


def cloud(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": str(number), "source": "/shop", "type": "view", "time": "2026-03-01T10:00:00Z"
    }  # fmt: skip


def segment(number: int) -> dict[str, Any]:
    return {"messageId": str(number), "event": "view", "userId": "ann", "timestamp": "2026-03-01T10:00:00Z"}


@pytest.mark.parametrize(
    ("path", "media", "made"),
    [
        ("/v1/events", "application/json", plain),
        ("/v1/events", "application/json", lambda number: [plain(number)]),
        ("/v1/events", "application/cloudevents+json", cloud),
        ("/v1/events", "application/cloudevents-batch+json", lambda number: [cloud(number)]),
        ("/v1/track", "application/json", segment),
        ("/v1/batch", "application/json", lambda number: {"batch": [{"type": "track", **segment(number)}]}),
    ],
    ids=["event", "events", "CloudEvent", "CloudEvents", "Segment's message", "Segment's batch"],
)
def test_bodies_that_wait_are_bounded(door: Served, admin: Connection, path: str, media: str, made: Any) -> None:
    def send(number: int) -> Reply:
        return door.post(json.dumps(made(number)).encode() + PADDING, path, as_=media)

    with ThreadPoolExecutor(BODIES) as threads:
        with admin.transaction():
            admin.execute("LOCK TABLE refold.event_ids IN ACCESS EXCLUSIVE MODE")
            replies = [threads.submit(send, number) for number in range(BODIES)]
            # While nothing can be committed, only a refusal is an answer.
            answered, _ = wait(replies, timeout=6, return_when=FIRST_COMPLETED)
            assert [one.result().status for one in answered][:1] == [429]
        statuses = [one.result().status for one in replies]
    assert set(statuses) <= {200, 201, 429}
    assert 4 <= sum(status != 429 for status in statuses) < BODIES
