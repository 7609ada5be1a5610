"""What the tests of a node with noderuntime alone share: manifests, waits, the kubelet's settings, traces."""
