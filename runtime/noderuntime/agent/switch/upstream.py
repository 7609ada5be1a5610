"""The node's previous runtime, to which a revert connects the kubelet again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from noderuntime.agent.layout import Layout
from noderuntime.core import log
from noderuntime.core.errors import FailedPrecondition, NoderuntimeError
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient

_log = log.get(__name__)

_SCHEME = "unix://"


def socket_of(layout: Layout, endpoint: str) -> Path:
    """Return the path of an endpoint's socket (``unix://…``) as this process sees it."""
    return layout.at(endpoint.removeprefix(_SCHEME))


async def check(socket: Path) -> None:
    """Check that the upstream runtime responds and is supported. Raises FailedPrecondition otherwise."""
    async with CriClient(socket) as client:
        name = (await client.version()).runtime_name
    if name != "containerd":
        raise FailedPrecondition(
            f"{socket} is {name or 'a runtime without a name'}: mode Delegate requires containerd, whose"
            " image store it uses; set kubelet.mode Manual"
        )


async def shared_handlers(socket: Path, ours: Iterable[str]) -> tuple[str, ...]:
    """Return the names of our handlers that the upstream has too. Empty if it does not report its own."""
    try:
        return tuple(sorted(await handlers(socket) & set(ours)))
    except NoderuntimeError as error:
        _log.warning("the upstream did not report its handlers", error=error)
        return ()


async def handlers(socket: Path) -> frozenset[str]:
    """Return the names of the upstream's handlers (RuntimeService.Status, verbose).

    containerd before 2.0 reports them only in its configuration.
    """
    async with CriClient(socket) as client:
        answer = await client.status()
    reported = {handler.name for handler in answer.runtime_handlers if handler.name}
    return frozenset(reported | _configured(answer))


def _configured(answer: cri.StatusResponse) -> set[str]:
    """Return the keys of containerd.runtimes in the configuration of containerd's verbose status."""
    try:
        found: Any = json.loads(answer.info.get("config", "{}"))
        return set(found["containerd"]["runtimes"])
    except (ValueError, KeyError, TypeError):
        return set()
