"""Projections: what a metric is, read from one file and checked before anything runs."""
