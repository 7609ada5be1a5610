"""Image backends: the daemon's own store, or the node's containerd."""
