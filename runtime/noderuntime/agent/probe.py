"""Canaries: can a pod of this handler start here now?

A canary is a sandbox in the host's network that asks for a PID namespace of the pod, so
that every handler has to run its root container: image-less, without CNI (whose
plugins may cost an address or ask the API for a pod that does not exist; the network is
the kubelet's NetworkReady). "Ready" means: the handler's runtime created and started a
container under its monitor, it was running, and it could be stopped and removed.

Canaries carry :data:`LABEL`; the runtime shows them only to those who ask for that
label, so the kubelet never takes one for an orphan of a pod.
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
    """What a canary showed; ``trouble`` is one line in the tool's own words."""

    handler: str
    ready: bool
    trouble: str = ""
    milliseconds: int = 0


async def probe(socket: Path, handlers: Iterable[str]) -> list[Finding]:
    """Try each handler in turn. Raises Unavailable when the runtime itself is away."""
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
        return Finding(handler, ready=False, trouble=str(error))
    if state != cri.SANDBOX_READY:
        return Finding(handler, ready=False, trouble="the canary sandbox ended as soon as it had started")
    return Finding(handler, ready=True, milliseconds=round((time.monotonic() - began) * 1000))


async def _remove_stale(client: CriClient) -> None:
    """Remove canaries of a prober that died; younger ones may be somebody's who probes right now."""
    for sandbox in await client.sandboxes({LABEL: "true"}):
        if time.time_ns() - sandbox.created_at > _STALE_NS:
            try:
                await client.remove(sandbox.id)
            except NoderuntimeError as error:
                _log.warning("stale canary stays", sandbox=sandbox.id, error=error)


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
