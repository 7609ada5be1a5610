"""CRI's pod metrics: what cAdvisor told of containers, under its names, for monitoring by Prometheus."""
