"""The operator: a NodeRuntime becomes a runtime on every selected node."""
