"""Access to any PostgreSQL: connections, locks, retries, time-outs; without knowledge of refold's tables."""
