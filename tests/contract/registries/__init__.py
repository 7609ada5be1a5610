"""Registries for tests: real ones in several configurations, and one that misbehaves."""
