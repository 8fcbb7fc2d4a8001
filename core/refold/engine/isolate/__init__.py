"""Finding the events that fail: in a page, in a load by key, and among the events that a build has applied."""
