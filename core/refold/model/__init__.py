"""Events, streams and projections as values, and the SQL that keeps them, as text. Needs no database."""
