"""The daemon's own metrics and traces."""
