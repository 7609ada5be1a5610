"""What a line of the log is about: the keys of pods and containers, for :func:`noderuntime.core.log.bind`.

``pod`` is namespace and name, as kubectl's users know it; IDs are those of CRI.
"""

from __future__ import annotations

from noderuntime.core import log
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.ledger.records import Container, Sandbox


def bind_pod(metadata: api_pb2.PodSandboxMetadata) -> None:
    """Speak of a pod that has no sandbox yet."""
    log.bind(pod=_pod(metadata))


def bind_sandbox(sandbox: Sandbox) -> None:
    """Speak of a sandbox."""
    log.bind(pod=_pod(sandbox.config.metadata), sandbox=sandbox.id)


def bind_new_container(sandbox: Sandbox, metadata: api_pb2.ContainerMetadata) -> None:
    """Speak of a container that has no ID yet."""
    log.bind(pod=_pod(sandbox.config.metadata), sandbox=sandbox.id, container_name=metadata.name)


def bind_container(ledger: Ledger, container: Container) -> None:
    """Speak of a container."""
    sandbox = ledger.sandboxes.find(container.sandbox_id)
    pod = {} if sandbox is None else {"pod": _pod(sandbox.config.metadata)}
    log.bind(
        **pod,
        sandbox=container.sandbox_id,
        container=container.id,
        container_name=container.config.metadata.name,
    )


def _pod(metadata: api_pb2.PodSandboxMetadata) -> str:
    return f"{metadata.namespace}/{metadata.name}"
