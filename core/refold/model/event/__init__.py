"""An event: its fields, its JSON, its times, and what of them Postgres can hold."""
