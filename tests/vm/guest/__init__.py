"""Runs in the machine, with the bundle's Python."""
