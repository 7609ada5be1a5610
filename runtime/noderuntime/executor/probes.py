"""What handlers can do, as their binaries say; each is asked again only when that was long ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from noderuntime import log
from noderuntime.errors import NoderuntimeError
from noderuntime.executor.base import Executor, Features

_log = log.get(__name__)

_AGAIN_SECONDS = 60.0


class Probes:
    """Remembers answers, and failures to answer. For use on one event loop."""

    def __init__(self, executors: Mapping[str, Executor], *, user_namespaces: bool) -> None:
        """Ask these; ``user_namespaces`` tells whether the node's kernel has what they need for them."""
        self._executors = executors
        self._user_namespaces = user_namespaces
        self._answers: dict[str, tuple[float, Features | NoderuntimeError]] = {}
        self._asking = asyncio.Lock()

    def __iter__(self) -> Iterator[str]:
        """Name the handlers."""
        return iter(self._executors)

    async def features(self, handler: str) -> Features:
        """Return what a handler offers on this node; raises what its probe raised."""
        async with self._asking:
            at, answer = self._answers.get(handler, (float("-inf"), None))
            if answer is None or time.monotonic() - at > _AGAIN_SECONDS:
                answer = await self._ask(self._executors[handler])
                self._answers[handler] = time.monotonic(), answer
        if isinstance(answer, NoderuntimeError):
            raise answer
        return answer

    async def _ask(self, executor: Executor) -> Features | NoderuntimeError:
        try:
            told = await executor.probe()
        except NoderuntimeError as error:
            _log.warning("a handler is broken", handler=executor.name, error=error)
            return error
        return replace(told, user_namespaces=told.user_namespaces and self._user_namespaces)
