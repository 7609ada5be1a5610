"""CRI v1: ``api.proto`` and the stubs protoc made of it."""
