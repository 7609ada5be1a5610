"""The hostname of a pod."""

from __future__ import annotations

import re
import socket

from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2

_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")


def hostname_of(config: api_pb2.PodSandboxConfig) -> str:
    """Return the sandbox's hostname, or the node's if the pod has none, as with the node's network.

    InvalidArgument if the kernel would not accept it (HOST_NAME_MAX is 64).
    """
    if not config.hostname:
        return socket.gethostname()
    if not _HOSTNAME.fullmatch(config.hostname):
        raise InvalidArgument(
            f"hostname {config.hostname[:80]!r} is not a valid hostname of at most 64 characters"
        )
    return config.hostname
