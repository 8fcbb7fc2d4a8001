"""Where a number comes from: the events behind a row, the rows that an event is in, and the path from log to sinks."""
