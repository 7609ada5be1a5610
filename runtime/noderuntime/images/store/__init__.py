"""The image store: catalog, content, layers in transit, and garbage collection."""
