"""Backfills from files: how fast one may run, and the SQL of its effect on metrics. Pure."""
