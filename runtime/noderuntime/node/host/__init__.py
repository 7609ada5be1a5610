"""System calls, mounts and processes: the only layer that makes them."""
