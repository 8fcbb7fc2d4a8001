"""Captures: tables whose changes become events, described by files and kept by generated triggers."""
