"""Garbage collection of the pod network: after the start, and every hour."""

from __future__ import annotations

import asyncio

from noderuntime.core import log, tasks
from noderuntime.core.errors import Unavailable
from noderuntime.lifecycle.ledger.ledger import Ledger
from noderuntime.lifecycle.parts import Parts

_log = log.get(__name__)

_PERIOD_SECONDS = 3600.0
_RETRY_SECONDS = 60.0
"""The time to the next attempt while no network is configured."""


async def collect_network_garbage(parts: Parts, after: asyncio.Task[None]) -> None:
    """Have the plugins remove leaked addresses and rules (CNI GC). Runs until cancelled.

    It begins at the end of ``after``, which calls DEL for what died: that removes more than GC can.
    It must not run beside an upstream runtime, whose pods' attachments are not in this ledger.
    """
    await tasks.first(after)
    while True:
        pause = await collect(parts)
        await asyncio.sleep(pause)


async def collect(parts: Parts) -> float:
    """Collect once and return the seconds until the next time; a failure is logged."""
    try:
        await parts.network.collect_garbage(lambda: attachments(parts.ledger))
    except Unavailable:
        return _RETRY_SECONDS
    except Exception as error:  # what a plugin prints must not end the daemon
        _log.warning("CNI GC failed", error=error)
    return _PERIOD_SECONDS


def attachments(ledger: Ledger) -> dict[str, bytes]:
    """Return the CNI results of the sandboxes that are attached, or may be."""
    return {one.id: one.cni_result for one in ledger.sandboxes if one.netns and not one.released_at}
