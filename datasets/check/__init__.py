"""Reads a data set once and says what would fail: `python3 -m datasets.check`."""
