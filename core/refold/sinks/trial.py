"""One attempt to reach a receiver, without a row."""

from __future__ import annotations

import psycopg

from refold.sinks.kinds.registry import receiver
from refold.store.sinks import Sink


def ping(conn: psycopg.Connection, sink: Sink) -> str:
    """Return what the receiver answers.

    Args:
        conn: acts as refold_worker.
        sink: the sink.

    Raises:
        DeliveryError: the receiver cannot be reached, or is not set up.
    """
    made = receiver(sink.definition)
    try:
        return made.ping()
    finally:
        made.close()
