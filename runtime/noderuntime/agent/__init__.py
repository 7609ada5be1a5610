"""The agent in the DaemonSet's pod: installs the bundle, runs the switch, probes handlers, reports status."""
