"""Exec, attach and port-forward: what a client speaks over a connection, on one side; sessions, on the other.

    bytes ─► request ─► token ─► upgrade ─┬─► SPDY/3.1 ───────────────┬─► remotecommand ─► a session
             (HTTP/1.1)                   └─► WebSocket ─► channels ──┴─► portforward

``spdy`` is sans-I/O; everything else awaits. A client that is slow makes us slow: nothing here
grows with what a client sends or does not read.
"""
