"""Registries for tests: real ones in every guise, and one that lies."""
