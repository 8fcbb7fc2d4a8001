"""Sinks: what leaves the database, to whom, and the proof that it has arrived."""
