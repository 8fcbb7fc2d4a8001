"""Sinks of the kind `webhook`: rows are posted to a URL, signed as Standard Webhooks asks."""
