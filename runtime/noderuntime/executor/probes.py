"""What handlers can do, as their binaries say; each is asked again only when that was long ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from noderuntime import log
from noderuntime.errors import NoderuntimeError
from noderuntime.executor.base import Executor, Features

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

    def __iter__(self) -> Iterator[str]:
        """Name the handlers."""
        return iter(self._executors)

    async def features(self, handler: str) -> Features:
        """Return what a handler offers on this node; raises what its probe raised."""
        async with self._asking:
            executor, known = self._executors[handler], self._answers.get(handler)
            if known is None or known.executor is not executor or known.is_old():
                known = _Answer(executor, await self._ask(executor), time.monotonic())
                self._answers[handler] = known
        if isinstance(known.told, NoderuntimeError):
            raise known.told
        return known.told

    async def _ask(self, executor: Executor) -> Features | NoderuntimeError:
        try:
            told = await executor.probe()
        except NoderuntimeError as error:
            _log.warning("a handler is broken", handler=executor.name, error=error)
            return error
        return replace(told, user_namespaces=told.user_namespaces and self._user_namespaces)
