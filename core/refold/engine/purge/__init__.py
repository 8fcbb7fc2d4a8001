"""The purge of the log: folding events into the bases of builds, and letting segments go."""
