"""The log's HTTP door: requests in, group commits, and an answer for each event after its commit."""
