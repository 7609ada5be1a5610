"""Where root filesystems come from."""
