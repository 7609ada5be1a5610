"""containerd's gRPC services as far as they are called here, and the stubs protoc makes of them.

Package, message and field names, numbers and types are containerd's; calls and
messages that are not used are left out. A contract test compares them with the
official schema. ``scripts/proto`` makes the stubs anew.
"""
