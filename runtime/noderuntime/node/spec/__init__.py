"""The OCI runtime spec of a container, composed of small functions."""
