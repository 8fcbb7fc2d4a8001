"""The queues of sinks: their names, and how many keys a message has. Pure."""

from __future__ import annotations

KEYS = 1_000
"""Most keys in a message."""
CHANNEL = "refold_outbox"
"""Channel of the notification that wakes deliverers."""


def queue(sink_id: int) -> str:
    """Return the name of a sink's queue; its table is `pgmq.q_` and this name."""
    return f"refold_sink_{sink_id}"
