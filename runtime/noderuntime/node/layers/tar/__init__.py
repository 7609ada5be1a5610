"""Reading tar archives from untrusted streams."""
