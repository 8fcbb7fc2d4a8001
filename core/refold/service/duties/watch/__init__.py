"""The steps of the duty `anomalies`: it counts, and judges what it has counted."""
