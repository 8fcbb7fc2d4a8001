"""What people did, by commands and on the dashboard: `refold.actions`, from which toil is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from refold.postgres.rows import one_row
from refold.store.log.append import storable

LONGEST = 200
"""Most characters of an outcome."""


@dataclass(slots=True)
class Action:
    """An action that runs.

    Args:
        action_id: its number.
        outcome: what came of it, without data of events; to be set by whoever acts.
        incident_id: the incident that it is about, if any.
    """

    action_id: int
    outcome: str = "done"
    incident_id: int | None = None


@contextmanager
def recorded(
    conn: psycopg.Connection,
    command: str,
    arguments: Mapping[str, Any],
    *,
    by: str | None = None,
    incident_id: int | None = None,
) -> Iterator[Action]:
    """Record an action of a person: that it begins, and in the end what came of it.

    An action whose process is killed stays without an outcome. What an error says is not kept: it may name an event.

    Args:
        conn: may act as refold_worker, in autocommit mode.
        command: its words.
        arguments: what the person gave, without secrets.
        by: the person; by default the login.
        incident_id: the incident that it is about.
    """
    given = Jsonb({name: storable(value) if isinstance(value, str) else value for name, value in arguments.items()})
    (number,) = one_row(
        conn,
        """
        INSERT INTO refold.actions (by, command, arguments, incident_id)
        VALUES (coalesce(%s, session_user), %s, %s, %s) RETURNING action_id
        """,
        (by, command, given, incident_id),
    )
    action = Action(number, incident_id=incident_id)
    try:
        yield action
    except BaseException as error:
        action.outcome = f"failed: {type(error).__name__}"
        raise
    finally:
        # A connection that is lost cannot say so.
        if not conn.closed and not conn.broken:
            tell(conn, action)


def tell(conn: psycopg.Connection, action: Action) -> None:
    """Record what came of an action; in the transaction that does it, so that one stands if the other does."""
    conn.execute(
        "UPDATE refold.actions SET outcome = %s, incident_id = %s WHERE action_id = %s",
        (action.outcome[:LONGEST], action.incident_id, action.action_id),
    )
