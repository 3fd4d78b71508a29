"""Files on disk -> 8-bit batches."""
