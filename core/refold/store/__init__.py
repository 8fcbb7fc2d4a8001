"""refold's own state in the database: its schema, the log, builds, incidents."""
