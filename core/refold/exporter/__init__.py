"""The exporter: what Prometheus scrapes, read from the database for all workers at once."""
