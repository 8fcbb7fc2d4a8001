"""Making events for tests: as many as wanted, each with an id of its own."""

from collections.abc import Iterable
from typing import Any

import psycopg

MONDAY_MS = 1_772_409_600_000
"""2026-03-02, UTC, in milliseconds since 1970."""
HOUR_MS = 3_600_000


def events(count: int, prefix: str = "e", **fields: Any) -> list[dict[str, Any]]:
    """Events an hour apart from Monday on, by three users who view, put into the cart, and buy."""
    return [
        {
            "id": f"{prefix}{number}",
            "user_id": f"u{number % 3}",
            "action": ("view", "cart", "purchase")[number % 3],
            "ts": MONDAY_MS + number * HOUR_MS,
            **fields,
        }
        for number in range(count)
    ]


def stored(conn: psycopg.Connection[Any]) -> list[str]:
    """The ids in the log, sorted."""
    return [event_id for (event_id,) in conn.execute("SELECT event_id FROM refold.events ORDER BY 1").fetchall()]


def ids(offered: Iterable[dict[str, Any]]) -> list[str]:
    """The ids of events, sorted as the database sorts them."""
    return sorted(str(event["id"]) for event in offered)


def rejected(conn: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Source, line, answer and reason of what was rejected, in order."""
    return conn.execute(
        "SELECT source, line, answer, reason FROM refold.rejected ORDER BY source, line, answer"
    ).fetchall()


def small_segments(conn: psycopg.Connection[Any], size: int) -> None:
    """Cuts an empty log into segments of so many positions. The connection is a superuser's, in autocommit mode."""
    conn.execute("UPDATE refold.settings SET segment_size = %s", (size,))
    for (segment,) in conn.execute("SELECT segment::text FROM refold.segments").fetchall():
        conn.execute(f"DROP TABLE {segment}".encode())
    conn.execute("SELECT refold.ensure_segments()")
