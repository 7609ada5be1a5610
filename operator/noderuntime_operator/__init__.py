"""The operator: installs the runtime on every node that a NodeRuntime selects."""
