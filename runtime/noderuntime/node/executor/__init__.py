"""Runtime handlers: OCI runtimes that are driven through their command line."""
