"""Long-running processes: workers, and the duties that they run."""
