"""Questions that people ask of a database; nothing is changed."""
