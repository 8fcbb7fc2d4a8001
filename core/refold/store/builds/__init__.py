"""Builds: making them, switching to them, and knowing what there is."""
