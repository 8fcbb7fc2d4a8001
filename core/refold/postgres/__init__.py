"""Talking to any PostgreSQL: connections, locks, retries, time-outs. Knows nothing of refold's tables."""
