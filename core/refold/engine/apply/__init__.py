"""Applying events to builds: pages, and first loads (backfills)."""
