"""PortForward: connections into a pod."""

from __future__ import annotations

from pathlib import Path

from noderuntime.core.errors import FailedPrecondition, InvalidArgument
from noderuntime.core.sessions import Forward, Stdio
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.stdio_relay import relay
from noderuntime.lifecycle.ledger.records import Sandbox
from noderuntime.lifecycle.parts import Parts

_MAX_PORTS = 32


def port_forward_session(parts: Parts, request: api_pb2.PortForwardRequest) -> Forward:
    """Check a PortForward request and return its session (CRI PortForward)."""
    _ready(parts, request.pod_sandbox_id)
    if len(request.port) > _MAX_PORTS or not all(0 < port < 1 << 16 for port in request.port):
        raise InvalidArgument(f"port: at most {_MAX_PORTS} numbers from 1 to 65535")
    return Forward(
        sandbox_id=request.pod_sandbox_id,
        ports=tuple(request.port),
        serve=lambda port, stdio: _serve(parts, request.pod_sandbox_id, port, stdio),
    )


async def _serve(parts: Parts, sandbox_id: str, port: int, stdio: Stdio) -> None:
    """Connect and relay bytes in both directions until the pod closes the connection."""
    sandbox = _ready(parts, sandbox_id)
    netns = Path(sandbox.netns) if sandbox.netns else None
    connection = await parts.executor(sandbox.handler).connect(sandbox.id, netns, port)
    try:
        await relay(connection, stdio, stdin=True)
    finally:
        await connection.close()


def _ready(parts: Parts, sandbox_id: str) -> Sandbox:
    sandbox = parts.ledger.sandboxes.get(sandbox_id)
    if not sandbox.ready:
        raise FailedPrecondition(f"sandbox {sandbox.id} is not ready")
    return sandbox
