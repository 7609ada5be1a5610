"""Determines the node's cgroup driver. It must be the kubelet's, or the limits of pods do not nest.

The upstream has it in its own configuration (CRI RuntimeConfig), and the kubelet gets it from this daemon.
The result is stored, so that a start does not depend on the upstream.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Protocol

import grpc

from noderuntime.core import log
from noderuntime.core.errors import Unavailable
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.router.upstream import Upstream, UpstreamStatus
from noderuntime.node.host.cgroup_names import CgroupDriver

_log = log.get(__name__)

_RUNTIME_CONFIG = "/runtime.v1.RuntimeService/RuntimeConfig"
_KEY = "cgroup_driver"
_ASK_SECONDS = 5.0
_WAIT_SECONDS = 30.0
"""How long the first start waits for the upstream. After that systemd restarts the daemon."""
_PAUSE_SECONDS = 0.2

_DRIVERS: dict[int, CgroupDriver] = {api_pb2.SYSTEMD: "systemd", api_pb2.CGROUPFS: "cgroupfs"}


class Metadata(Protocol):
    """The store of the result: the ledger."""

    async def meta(self, key: str) -> str | None:
        """Return the stored value, if any."""

    async def set_meta(self, key: str, value: str) -> None:
        """Store a value."""


async def cgroup_driver(
    configured: CgroupDriver | None, upstream: Upstream | None, metadata: Metadata
) -> CgroupDriver:
    """Return the driver: the configured one, else the upstream's, else that of the node's init system.

    Unavailable if the upstream does not respond and no earlier result is stored.
    """
    if configured is not None:
        return configured
    if upstream is None:
        return _of_init()
    known = await metadata.meta(_KEY)
    reported = await _ask(upstream, seconds=0.0 if known else _WAIT_SECONDS)
    if reported is None:
        _log.warning("upstream does not report its cgroup driver, using the stored one", driver=known)
        return "systemd" if known == "systemd" else "cgroupfs"
    await metadata.set_meta(_KEY, reported)
    return reported


async def _ask(upstream: Upstream, seconds: float) -> CgroupDriver | None:
    """Return the upstream's driver; retry for ``seconds`` seconds, or return None at once if it is zero."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            reply = await upstream.unary(_RUNTIME_CONFIG, b"", timeout=_ASK_SECONDS).reply()
        except UpstreamStatus as error:
            if error.code is grpc.StatusCode.UNIMPLEMENTED:
                return _of_init()
            if not seconds:
                return None
            if time.monotonic() > deadline:
                raise Unavailable(error.details) from error
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        return _DRIVERS[api_pb2.RuntimeConfigResponse.FromString(reply.body).linux.cgroup_driver]


def _of_init() -> CgroupDriver:
    return "systemd" if Path("/run/systemd/system").is_dir() else "cgroupfs"
