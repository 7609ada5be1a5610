"""A node's real parts, private to a test run: tools, containerd, images, our daemon."""
