"""The log: storing every event exactly once."""
