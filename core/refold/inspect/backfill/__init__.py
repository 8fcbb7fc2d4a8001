"""What a backfill would do: the answers that its records get, and its effect on each metric."""
