"""Builds: reading, locking and changing them."""
