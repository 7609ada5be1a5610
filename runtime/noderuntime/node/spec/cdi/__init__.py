"""CDI: devices of third parties, described in files of the node as edits to an OCI spec.

tags.cncf.io/container-device-interface, up to version 1.0 of its specification.
"""
