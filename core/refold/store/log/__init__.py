"""The log: getting events in, once each, and whether it is what was written."""
