"""The pages, one a module: what each reads, and what it shows."""
