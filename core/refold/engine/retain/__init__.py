"""How long the rows of metrics are kept: letting the slices go that are older."""
