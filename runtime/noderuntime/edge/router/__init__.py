"""Routing of CRI calls: this daemon or the upstream runtime, whose bytes are passed through."""
