"""Applying events to builds: pages, first loads, and finding the events that fail."""
