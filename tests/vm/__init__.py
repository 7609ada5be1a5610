"""An emulated machine with cgroup v2 and systemd, for tests that this machine may not be able to run."""
