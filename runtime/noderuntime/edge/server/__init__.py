"""The CRI edge: gRPC services that convert, delegate and map errors."""
