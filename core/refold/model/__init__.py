"""What things are, as values and as SQL text: events, streams, projections, and how each is kept. No database."""
