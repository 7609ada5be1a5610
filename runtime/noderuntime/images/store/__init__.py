"""The image store: catalog, content, layers being downloaded, and garbage collection."""
