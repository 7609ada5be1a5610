"""The Container Device Interface (CDI): files on the node describe vendors' devices as edits of OCI specs.

tags.cncf.io/container-device-interface, up to version 1.1.0 of its specification.
"""
