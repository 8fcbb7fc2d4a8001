"""Canaries: candidates that some readers see first, and that go live or end by rules."""
