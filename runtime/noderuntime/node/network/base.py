"""What the pod layer requires of the pod network.

The node's own CNI configuration is used as it is. What belongs to a pod is in :class:`Attachment`, which the
ledger keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from noderuntime.cri.v1 import api_pb2


@dataclass(frozen=True, slots=True)
class Attachment:
    """A sandbox on the pod network."""

    ips: tuple[str, ...]
    """Addresses of the pod, the first IPv4 address first."""
    result: bytes
    """What DEL needs: the network's configuration and the result of ADD, as JSON."""


class Network(Protocol):
    """The pod network of the node.

    Calls of different sandboxes run side by side, those of one sandbox one after the other, also beyond the
    death of the daemon. Each is bounded, whatever the plugins do: DeadlineExceeded names the one that hangs.
    """

    async def configuration(self) -> bytes:
        """Return the configuration of the network that pods are attached to; Unavailable if there is none.

        The ledger keeps it before ADD begins, so that DEL has it even if the daemon dies in between.
        """

    async def attach(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, network: bytes
    ) -> Attachment:
        """Attach a sandbox (CNI ADD), with hostPorts, bandwidth and DNS as capabilities. At most 3 minutes.

        ``network`` is what :meth:`configuration` returned. On failure DEL has been called; the caller calls
        :meth:`detach` nevertheless.
        """

    async def detach(
        self, sandbox_id: str, netns: str, config: api_pb2.PodSandboxConfig, result: bytes
    ) -> None:
        """Detach a sandbox (CNI DEL), with the configuration of its ADD. At most 90 seconds.

        ``result`` is that of :meth:`attach`, or of :meth:`configuration` if ADD did not finish; if it is
        empty, the node's current configuration is used. Idempotent, and possible when the namespace is gone.
        """

    async def ready(self) -> tuple[bool, str]:
        """Return whether pods can be attached, and if not, why (CRI Status, NetworkReady).

        Takes 11 seconds at most, and only after a start or a change of the configuration.
        """

    async def collect_garbage(self, attachments: Callable[[], Mapping[str, bytes]]) -> None:
        """Have the plugins remove what belongs to no attachment, such as leaked addresses (CNI GC).

        ``attachments`` returns the results (see :meth:`detach`) of all sandboxes that are attached, or may
        be, by their IDs. It is called when no attach or detach runs; those that begin wait. Plugins without
        GC, and configurations before version 1.1.0, keep what leaked.

        Unavailable if no network is configured.
        """


def wants_pod_network(config: api_pb2.PodSandboxConfig) -> bool:
    """Return whether the sandbox has a network namespace of its own."""
    options = config.linux.security_context.namespace_options
    return bool(options.network != api_pb2.NODE)
