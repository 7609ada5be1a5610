"""Which cgroup driver this node uses: we must use the kubelet's, or limits of pods would not nest.

The upstream knows it from its own configuration (CRI RuntimeConfig), and the kubelet
takes it from us. The answer is kept, so that a start does not depend on the upstream.
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
_PATIENCE_SECONDS = 30.0
"""How long a first start waits for the upstream; systemd then starts us again."""
_PAUSE_SECONDS = 0.2

_DRIVERS: dict[int, CgroupDriver] = {api_pb2.SYSTEMD: "systemd", api_pb2.CGROUPFS: "cgroupfs"}


class Memory(Protocol):
    """Where the answer is kept: the ledger."""

    async def meta(self, key: str) -> str | None:
        """Return what was kept."""

    async def set_meta(self, key: str, value: str) -> None:
        """Keep a value."""


async def cgroup_driver(
    configured: CgroupDriver | None, upstream: Upstream | None, memory: Memory
) -> CgroupDriver:
    """Return the driver: the configured one, else the upstream's, else that of the node's init system.

    Raises Unavailable when the upstream has to be asked for the first time and does not answer.
    """
    if configured is not None:
        return configured
    if upstream is None:
        return _of_init()
    known = await memory.meta(_KEY)
    told = await _ask(upstream, patience=0.0 if known else _PATIENCE_SECONDS)
    if told is None:
        _log.warning("the upstream does not tell its cgroup driver, taking the last known", driver=known)
        return "systemd" if known == "systemd" else "cgroupfs"
    await memory.set_meta(_KEY, told)
    return told


async def _ask(upstream: Upstream, patience: float) -> CgroupDriver | None:
    """Ask until there is an answer; None when the patience (seconds) is zero and there was none."""
    deadline = time.monotonic() + patience
    while True:
        try:
            reply = await upstream.unary(_RUNTIME_CONFIG, b"", timeout=_ASK_SECONDS).reply()
        except UpstreamStatus as error:
            if error.code is grpc.StatusCode.UNIMPLEMENTED:
                return _of_init()
            if not patience:
                return None
            if time.monotonic() > deadline:
                raise Unavailable(error.details) from error
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        return _DRIVERS[api_pb2.RuntimeConfigResponse.FromString(reply.body).linux.cgroup_driver]


def _of_init() -> CgroupDriver:
    return "systemd" if Path("/run/systemd/system").is_dir() else "cgroupfs"
