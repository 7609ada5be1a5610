"""What is wrong with this node, found without a daemon, and what to do about it.

A check is a function that returns findings; it reads and asks, and changes nothing.
"""
