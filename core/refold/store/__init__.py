"""refold's state in the database: schema, log, builds, incidents."""
