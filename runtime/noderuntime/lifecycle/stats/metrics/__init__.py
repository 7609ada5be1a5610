"""CRI's pod metrics: cAdvisor's container metrics under the same names, for Prometheus."""
