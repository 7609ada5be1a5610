"""Where CRI comes in: the gRPC server, the router, and the streaming server."""
