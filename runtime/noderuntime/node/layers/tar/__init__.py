"""A reader of tar archives from untrusted streams."""
