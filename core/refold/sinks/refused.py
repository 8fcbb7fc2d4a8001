"""Rows that a receiver refused, given again because a person asks for it."""

from __future__ import annotations

import psycopg

from refold.store import outbox, sinks, undelivered
from refold.store.builds.build import lock


def give_again(conn: psycopg.Connection, sink_id: int) -> int:
    """Send the keys of the rows that a receiver refused; return their number.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        sink_id: the sink.
    """
    with conn.transaction():
        state, _ = sinks.state(conn, sink_id)
        # See refold.store.outbox. Without a live build all slices are compared, which gives these rows too.
        if state.build_id is not None:
            lock(conn, state.build_id, wait=True)
        rows = undelivered.waiting(conn, sink_id)
        outbox.send(conn, sink_id, undelivered.columns(conn, sink_id), undelivered.keys(sink_id))
    return rows
