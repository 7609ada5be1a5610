"""Port-forward into a gVisor sandbox: ``runsc port-forward`` hands one end of a unix socket to the sentry.

The sentry connects to the port inside and copies both ways. It ends both ways as soon as either end
closes, so such a connection cannot be half-closed.
"""

from __future__ import annotations

import socket

from noderuntime.executor.command import OciCommand
from noderuntime.executor.execfiles import ExecFiles
from noderuntime.host.base import Connection


async def forward_port(runsc: OciCommand, files: ExecFiles, sandbox_id: str, port: int) -> Connection:
    """Connect to a TCP port inside the sandbox; ToolError with runsc's words when nobody listens there."""
    path = files.new(".sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        try:
            listener.listen(1)
            await runsc.call("port-forward", "--stream", str(path), sandbox_id, str(port))
        finally:
            path.unlink(missing_ok=True)
        made, _ = listener.accept()  # runsc connected before it handed its end over
    made.setblocking(False)
    return Connection(made, half_closes=False)
