"""Image layers: from a compressed stream to a directory tree, in worker processes.

A layer is written by a stranger. Everything here assumes the worst of it and
touches nothing outside the directory that it was given.
"""
