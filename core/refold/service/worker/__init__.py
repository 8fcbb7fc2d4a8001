"""Workers: processes that keep builds up to date, page by page."""
