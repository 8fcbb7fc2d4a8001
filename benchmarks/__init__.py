"""How fast refold is, measured against hand-written SQL on the same server: `python -m benchmarks`."""
