"""Messages of other systems, as they come over HTTP, and the events that they are. Pure."""
