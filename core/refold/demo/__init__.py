"""The demo: a simulated shop's day, and what refold does about everything that goes wrong in it."""
