"""Workers: they keep builds up to date, a page at a time."""
