"""Checks of a node that need no running daemon: what is wrong and how to fix it.

A check is a function that returns findings. Checks read files and run queries; they change nothing.
"""
