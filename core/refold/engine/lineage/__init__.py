"""What is made of what: from captures over the log, streams and metrics to analysts' views and sinks."""
