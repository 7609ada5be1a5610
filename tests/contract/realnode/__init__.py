"""The real parts of a node, private to a test run: tools, containerd, images, our daemon."""
