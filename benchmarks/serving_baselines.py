"""Servers that `benchmarks.serving` measures against: python -m benchmarks.serving_baselines KIND URL PORT.

one-commit   the same door, but 32 lanes that commit each event by itself
by-hand      a FastAPI handler with psycopg_pool, as one would write it; it checks the shape of an event, and no more
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

TABLE = """
    CREATE TABLE IF NOT EXISTS plain_events (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        event_id text NOT NULL UNIQUE,
        user_id text,
        action text NOT NULL,
        ts timestamptz NOT NULL,
        metadata jsonb NOT NULL,
        recorded_at timestamptz NOT NULL DEFAULT now()
    )
"""


def one_commit(url: str) -> Any:
    """The door, with a transaction for each request."""
    from refold.service.http.app import Door, application

    return application(Door(url, lanes=32, group_events=1))


def by_hand(url: str) -> Any:
    """A handler as one would write it."""
    from datetime import datetime

    from fastapi import FastAPI
    from psycopg.types.json import Jsonb
    from psycopg_pool import AsyncConnectionPool
    from pydantic import BaseModel

    class Event(BaseModel):
        id: str
        user_id: str | None = None
        action: str
        ts: datetime
        metadata: dict[str, Any] = {}

    pool = AsyncConnectionPool(url, min_size=20, max_size=20, open=False)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with pool:
            async with pool.connection() as conn:
                await conn.execute(TABLE.encode())
            yield

    app = FastAPI(lifespan=lifespan)

    async def add(event: Event) -> dict[str, bool]:
        async with pool.connection() as conn:
            await conn.execute(
                "INSERT INTO plain_events (event_id, user_id, action, ts, metadata) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT (event_id) DO NOTHING",
                (event.id, event.user_id, event.action, event.ts, Jsonb(event.metadata)),
            )
        return {"ok": True}

    add.__annotations__["event"] = Event
    app.post("/v1/events")(add)
    return app


if __name__ == "__main__":
    kind, url, port = sys.argv[1:]
    uvicorn.run(
        {"one-commit": one_commit, "by-hand": by_hand}[kind](url),
        port=int(port),
        http="httptools",
        loop="uvloop",
        log_level="error",
    )
