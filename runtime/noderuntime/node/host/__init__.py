"""System calls, mounts and processes. No other package makes system calls of its own."""
