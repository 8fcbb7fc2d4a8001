"""Scrub: verifying that the log equals what was written. It never heals; a person resolves damage."""
