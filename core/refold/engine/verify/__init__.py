"""What only Postgres can say of a query before it is kept."""
