"""I9: rows of a sink that somebody let go, so that the log may be purged. The files of producers say which they are."""

from __future__ import annotations

import psycopg

from chaos.stage import HISTORY, OPTIONS, SEGMENT_SIZE, Stage
from refold.errors import InputError
from refold.sinks.skip import look
from refold.store.sinks import known, state

TABLE = "graded"
"""What the sink fills in the receiving database."""


def waits(conn: psycopg.Connection, name: str, floor: int) -> int | None:
    """First position behind the lowest segment if a sink keeps it from a purge, because it is paused; else None.

    Args:
        conn: a superuser's.
        name: the sink.
        floor: first position of the segment.
    """
    found, _ = state(conn, known(conn, name).sink_id)
    # One that compares slices has no place in its stream.
    if found.condition != "paused" or found.cursor is None:
        return None
    row = conn.execute("SELECT upper_position FROM refold.segments WHERE lower_position = %s", (floor,)).fetchone()
    return None if row is None else int(row[0])


def undelivered(stage: Stage, floor: int) -> set[str]:
    """The events of a segment as they were sent, but for those of which the receiver has a row.

    Args:
        stage: of the campaign.
        floor: first position of the segment, one of those that were full before the load.
    """
    sent = stage.history[floor // SEGMENT_SIZE]
    with psycopg.connect(stage.receiver_url, autocommit=True, options=OPTIONS) as there:
        if there.execute("SELECT to_regclass(%s)", (f"public.{TABLE}",)).fetchone() == (None,):
            return set(sent)
        given = there.execute(f"SELECT event_id FROM public.{TABLE} WHERE event_id = ANY (%s)".encode(), (list(sent),))
        return set(sent) - {event_id for (event_id,) in given}


def lacks(stage: Stage, name: str, position: int) -> int:
    """How many rows too few wait for a paused sink, after it skipped to a place: those sent behind it have to wait.

    Args:
        stage: of the campaign.
        name: the sink.
        position: the place, the end of one of the segments that were full before the load.
    """
    try:
        waiting = stage.ask(lambda conn: look(conn, known(conn, name), None).rows)
    except InputError:
        # Another build is live, and the sink compares slices.
        return 0
    # But for persons, who may have been erased.
    return max(0, HISTORY * len(stage.history[position // SEGMENT_SIZE :]) - waiting)


def recorded(conn: psycopg.Connection, name: str) -> int:
    """How many rows of a sink were let go, as refold has recorded it."""
    outcomes = conn.execute(
        "SELECT outcome FROM refold.actions WHERE command = 'sinks skip' AND arguments ->> 'name' = %s"
        " AND outcome LIKE '%% let go'",
        (name,),
    ).fetchall()
    return sum(int(outcome.split(" ", 1)[0].replace(",", "")) for (outcome,) in outcomes)
