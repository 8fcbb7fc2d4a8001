"""An event: its fields, its JSON, its times, and the limits of what Postgres can store."""
