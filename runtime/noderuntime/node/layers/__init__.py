"""Unpacks image layers from a compressed stream into a directory tree, in worker processes.

Layers are untrusted input. The code accesses nothing outside the target directory.
"""
