"""A stream of events, the cursor over it, and the SQL that reads it a page at a time."""
