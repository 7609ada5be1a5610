"""What the machine does: processes, runtimes, monitors, networks, OCI specs, snapshots and layers."""
