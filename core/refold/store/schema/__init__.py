"""The schema: refold's tables, their installation, and the check that a database has them."""
