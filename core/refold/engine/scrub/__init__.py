"""Scrub: is the log what it was when it was written? Never heals; damage is for a person."""
