"""Check of erasures of people: all that were begun are proved."""

from __future__ import annotations

import psycopg

from refold.inspect.doctor.check import Check, looking
from refold.store.erasures import steps_left

NAME = "erasures"


def erasures(conn: psycopg.Connection) -> list[Check]:
    """Check the erasures, if there is any.

    Args:
        conn: connection of the login.
    """
    with looking(conn):
        left = steps_left(conn, for_hours=1)
    return [
        Check(
            NAME,
            "warn",
            f"erasure {number} is not finished: {step}",
            "Run `refold erase USER` again."
            if step == "log"
            else "Workers go on with it; `refold archive status` shows what may be in the way.",
        )
        for number, step in left.items()
    ]
