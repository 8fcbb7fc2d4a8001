"""The schema: refold's tables, how they get there, and whether a database has them."""
