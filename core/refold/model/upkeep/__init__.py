"""Upkeep: the SQL that keeps a build equal to its query, generated from a plan. Pure text, no database."""
