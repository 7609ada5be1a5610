"""What the pod layer asks of the network.

CNI's own configuration of the node is used as it is; nothing is kept here
between calls but what :class:`Attachment` carries into the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from noderuntime.cri.v1 import api_pb2


@dataclass(frozen=True, slots=True)
class Attachment:
    """A sandbox on the pod network."""

    ips: tuple[str, ...]
    result: bytes
    """The CNI result as JSON, needed again at detach."""


class Network(Protocol):
    """The pod network of the node."""

    async def attach(self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig) -> Attachment:
        """CNI ADD, with hostPorts, bandwidth and DNS as capabilities; on failure a DEL has been done."""

    async def detach(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, result: bytes
    ) -> None:
        """CNI DEL; idempotent, also when the namespace is gone or ADD never finished (result empty)."""

    async def ready(self) -> tuple[bool, str]:
        """Tell whether a usable configuration is there, and if not, why."""


def wants_pod_network(config: api_pb2.PodSandboxConfig) -> bool:
    """Tell whether the sandbox has a network namespace of its own."""
    options = config.linux.security_context.namespace_options
    return bool(options.network != api_pb2.NODE)


__all__: Sequence[str] = ("Attachment", "Network", "wants_pod_network")
