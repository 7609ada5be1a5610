"""PortForward: connections into a pod."""

from __future__ import annotations

from pathlib import Path

from noderuntime.cri.v1 import api_pb2
from noderuntime.errors import FailedPrecondition, InvalidArgument
from noderuntime.host.base import Connection
from noderuntime.parts import Parts
from noderuntime.sessions import Forward
from noderuntime.store.records import Sandbox

_MOST_PORTS = 32


def port_forward_session(parts: Parts, request: api_pb2.PortForwardRequest) -> Forward:
    """Check a PortForward request and return its session (CRI PortForward)."""
    _ready(parts, request.pod_sandbox_id)
    if len(request.port) > _MOST_PORTS or not all(0 < port < 1 << 16 for port in request.port):
        raise InvalidArgument(f"port: at most {_MOST_PORTS} numbers from 1 to 65535")
    return Forward(
        sandbox_id=request.pod_sandbox_id,
        ports=tuple(request.port),
        connect=lambda port: _connect(parts, request.pod_sandbox_id, port),
    )


async def _connect(parts: Parts, sandbox_id: str, port: int) -> Connection:
    sandbox = _ready(parts, sandbox_id)
    netns = Path(sandbox.netns) if sandbox.netns else None
    return await parts.executor(sandbox.handler).connect(sandbox.id, netns, port)


def _ready(parts: Parts, sandbox_id: str) -> Sandbox:
    sandbox = parts.ledger.sandboxes.get(sandbox_id)
    if not sandbox.ready:
        raise FailedPrecondition(f"sandbox {sandbox.id} is not ready")
    return sandbox
