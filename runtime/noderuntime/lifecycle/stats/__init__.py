"""Resource usage of pods, read from cgroups, network namespaces and the snapshotter."""
