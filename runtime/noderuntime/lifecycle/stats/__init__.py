"""What pods use of the node, read from cgroups, network namespaces and the snapshotter."""
