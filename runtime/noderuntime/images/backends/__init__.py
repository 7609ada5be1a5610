"""Image backends: a store of our own, or the containerd of the node."""
