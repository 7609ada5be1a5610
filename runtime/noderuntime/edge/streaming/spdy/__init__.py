"""SPDY/3.1 as used by Kubernetes, sans-I/O: bytes in, events out.

Draft: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/

Kubernetes' programs do not use the draft's flow control: they send no WINDOW_UPDATE and ignore received
ones, so neither side here has a window. Only TCP's flow control applies: a side that cannot accept more
data stops reading the connection.
"""

from noderuntime.edge.streaming.spdy.frames import SpdyError
from noderuntime.edge.streaming.spdy.session import Event, GoneAway, Opened, Received, ServerSession, WasReset

__all__ = ("Event", "GoneAway", "Opened", "Received", "ServerSession", "SpdyError", "WasReset")
