"""The demo: a day of a simulated shop with faults, which refold handles."""
