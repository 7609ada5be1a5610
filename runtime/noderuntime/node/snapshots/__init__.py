"""Root filesystems made of layers."""
