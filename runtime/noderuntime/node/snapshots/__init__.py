"""Root filesystems of containers, built from unpacked image layers."""
