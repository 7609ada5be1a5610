"""SPDY/3.1 as Kubernetes speaks it, sans-I/O: bytes in, events out.

Draft: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/

The draft's flow control is not in use between Kubernetes' programs: they send no WINDOW_UPDATE and
look at none, so neither side here keeps a window. TCP's own flow control is what there is: whoever
cannot take more data stops reading the connection.
"""

from noderuntime.edge.streaming.spdy.frames import SpdyError
from noderuntime.edge.streaming.spdy.session import Event, GoneAway, Opened, Received, ServerSession, WasReset

__all__ = ("Event", "GoneAway", "Opened", "Received", "ServerSession", "SpdyError", "WasReset")
