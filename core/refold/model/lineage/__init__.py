"""Where columns come from: the columns behind each column of a query, and the same in the form of OpenLineage. Pure."""
