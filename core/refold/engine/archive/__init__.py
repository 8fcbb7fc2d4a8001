"""The archive: sealed segments of the log as immutable files in a store, each proved by reading it back."""
