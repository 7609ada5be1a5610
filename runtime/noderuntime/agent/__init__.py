"""The DaemonSet's pod: delivers the bundle, asks for the switch, probes, reports."""
