"""Handlers: OCI runtimes driven through their command line."""
