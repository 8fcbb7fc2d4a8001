"""Checks of a query that need Postgres, before a build is created."""
