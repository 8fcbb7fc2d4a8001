"""Rules of canaries: what a candidate may differ in, and what follows from what is seen of it."""
