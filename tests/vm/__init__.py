"""A machine with cgroup v2 and systemd, whatever this one has: emulated, gone when its tests are done."""
