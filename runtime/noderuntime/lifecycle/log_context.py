"""The log context of pods and containers: keys for :func:`noderuntime.core.log.bind`.

``pod`` is namespace and name, as kubectl shows them. IDs are CRI's.
"""

from __future__ import annotations

from noderuntime.core import log
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.ledger.records import Container, Sandbox


def bind_pod(metadata: api_pb2.PodSandboxMetadata) -> None:
    """Bind a pod that has no sandbox yet."""
    log.bind(pod=_pod(metadata))


def bind_sandbox(sandbox: Sandbox) -> None:
    """Bind a sandbox."""
    log.bind(pod=_pod(sandbox.config.metadata), sandbox=sandbox.id)


def bind_new_container(sandbox: Sandbox, metadata: api_pb2.ContainerMetadata) -> None:
    """Bind a container that has no ID yet."""
    log.bind(pod=_pod(sandbox.config.metadata), sandbox=sandbox.id, container_name=metadata.name)


def bind_container(ledger: Ledger, container: Container) -> None:
    """Bind a container."""
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
