"""Upkeep (incremental view maintenance): the SQL that keeps a build equal to its query. Pure text, no database."""
