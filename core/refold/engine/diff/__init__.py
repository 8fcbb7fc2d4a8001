"""Differences between two builds of a metric: read-only, in one snapshot."""
