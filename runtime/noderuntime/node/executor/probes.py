"""What handlers can do, as their binaries say; each is asked again only when that was long ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from noderuntime.core import log
from noderuntime.core.errors import NoderuntimeError
from noderuntime.node.executor.base import Executor, Features

_log = log.get(__name__)

_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Answer:
    executor: Executor
    told: Features | NoderuntimeError
    at: float

    def is_old(self) -> bool:
        """Tell whether it is time to ask again."""
        return time.monotonic() - self.at > _AGAIN_SECONDS


class Probes:
    """Remembers answers, and failures to answer. For use on one event loop."""

    def __init__(self, executors: Mapping[str, Executor], *, user_namespaces: bool) -> None:
        """Ask these, which may change meanwhile.

        ``user_namespaces`` tells whether the node's kernel has what they need for user namespaces.
        """
        self._executors = executors
        self._user_namespaces = user_namespaces
        self._answers: dict[str, _Answer] = {}
        self._asking = asyncio.Lock()

    async def all(self) -> dict[str, Features | NoderuntimeError]:
        """Return what each handler of this moment offers on this node, or what its probe raised."""
        handlers = tuple(self._executors.items())
        return {name: await self._told(name, executor) for name, executor in handlers}

    async def features(self, handler: str) -> Features:
        """Return what a handler offers on this node; raises what its probe raised."""
        told = await self._told(handler, self._executors[handler])
        if isinstance(told, NoderuntimeError):
            raise told
        return told

    async def _told(self, handler: str, executor: Executor) -> Features | NoderuntimeError:
        async with self._asking:
            known = self._answers.get(handler)
            if known is None or known.executor is not executor or known.is_old():
                known = _Answer(executor, await self._ask(executor), time.monotonic())
                self._answers[handler] = known
        return known.told

    async def _ask(self, executor: Executor) -> Features | NoderuntimeError:
        try:
            told = await executor.probe()
        except NoderuntimeError as error:
            _log.warning("a handler is broken", handler=executor.name, error=error)
            return error
        return replace(told, user_namespaces=told.user_namespaces and self._user_namespaces)
