"""Canary sandboxes, which show whether a pod of a handler can start on this node.

A canary is a sandbox in the host's network with a PID namespace of its own, so that every handler must
run a root container. It needs no image and no CNI plugin: a plugin might allocate an address, or look
up a pod that does not exist. The network is covered by the kubelet's NetworkReady condition. A handler is
ready if its runtime created and started a container under a monitor, the container was running, and it
was stopped and removed.

Canaries have the label :data:`LABEL`. The daemon lists them only for a filter with that label, so
that the kubelet never mistakes one for an orphaned pod.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError, Unavailable
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient
from noderuntime.lifecycle.pods.canary import LABEL

_log = log.get(__name__)

_TIMEOUT = 60.0
_STALE_NS = 300 * 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a canary. ``message`` is the runtime's error, one line, if it is not ready."""

    handler: str
    ready: bool
    message: str = ""
    milliseconds: int = 0


async def probe(socket: Path, handlers: Iterable[str]) -> list[Finding]:
    """Probe the handlers one after the other. Raises Unavailable when the daemon cannot be reached."""
    async with CriClient(socket) as client:
        await client.version()
        await _remove_stale(client)
        return [await _probe_one(client, handler) for handler in handlers]


async def _probe_one(client: CriClient, handler: str) -> Finding:
    began = time.monotonic()
    try:
        sandbox_id = await client.run(_canary(handler), handler, timeout=_TIMEOUT)
        state = (await client.sandbox(sandbox_id)).status.state
        await client.remove(sandbox_id)
    except Unavailable:
        raise
    except NoderuntimeError as error:
        return Finding(handler, ready=False, message=str(error))
    if state != cri.SANDBOX_READY:
        return Finding(handler, ready=False, message="the canary sandbox exited right after its start")
    return Finding(handler, ready=True, milliseconds=round((time.monotonic() - began) * 1000))


async def _remove_stale(client: CriClient) -> None:
    """Remove canaries of a prober that died. Younger ones may belong to a probe that is running."""
    for sandbox in await client.sandboxes({LABEL: "true"}):
        if time.time_ns() - sandbox.created_at > _STALE_NS:
            try:
                await client.remove(sandbox.id)
            except NoderuntimeError as error:
                _log.warning("removing a stale canary failed", sandbox=sandbox.id, error=error)


def _canary(handler: str) -> cri.PodSandboxConfig:
    uid = str(uuid.uuid4())
    name = f"canary-{handler}"
    namespaces = cri.NamespaceOption(network=cri.NODE, pid=cri.POD, ipc=cri.POD)
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=name, uid=uid, namespace="noderuntime"),
        labels={LABEL: "true"},
        linux=cri.LinuxPodSandboxConfig(
            security_context=cri.LinuxSandboxSecurityContext(namespace_options=namespaces)
        ),
    )
