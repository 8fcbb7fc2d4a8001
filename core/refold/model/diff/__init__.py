"""The comparison of two builds of a metric: shapes, classes of rows, and the SQL that finds them."""
