"""The dashboard: pages about metrics, read-only by the role of its connections; what people do there needs a token."""
