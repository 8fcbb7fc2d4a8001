"""Finding the events that fail: of a page, of a load by key, of what a build has applied. One search, three ways in."""
