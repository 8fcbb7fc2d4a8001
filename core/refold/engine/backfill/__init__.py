"""Gives the log what a backfill has staged, no faster than its readers keep up."""
