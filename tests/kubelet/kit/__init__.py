"""Helpers of the tests: manifests, waits, the kubelet's settings, traces."""
