"""Exec, attach and port-forward: the protocols of clients on one side, sessions on the other.

    bytes ─► request ─► token ─► upgrade ─┬─► SPDY/3.1 ───────────────┬─► remotecommand ─► a session
             (HTTP/1.1)                   └─► WebSocket ─► channels ──┴─► portforward

``spdy`` is sans-I/O; the other modules await. Backpressure applies throughout: memory does not grow with
what a client sends or does not read.
"""
