"""Erasing a person: from the log, the ledger, the metrics, refold's own tables and the archive, with a proof."""
