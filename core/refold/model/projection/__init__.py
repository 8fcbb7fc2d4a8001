"""Projections: the definitions of metrics, each read from one file and checked before it runs."""
