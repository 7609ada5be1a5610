"""The features of handlers, as their binaries report them.

Each handler is probed on its own, so that a binary that hangs delays no other handler. Callers get the last
known answer at once, and an old answer is renewed in the background. Only a handler without any answer is
waited for, until the deadline of its probe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from noderuntime.core.errors import DeadlineExceeded, InvalidArgument, NoderuntimeError
from noderuntime.core.last_answer import LastAnswer
from noderuntime.node.executor.base import Executor, Features

PROBE_SECONDS = 3.0
"""The deadline of a probe."""
_RENEW_SECONDS = 60.0
_RETRY_SECONDS = 10.0
"""The time from a failed probe to the next one."""


async def probe(executor: Executor) -> Features:
    """Ask a handler's binary for its features.

    DeadlineExceeded if it hangs, ToolError with its output if it is broken, NotFound if it is missing.
    """
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await executor.probe()
    except TimeoutError:
        raise DeadlineExceeded(f"handler {executor.name} did not answer within {PROBE_SECONDS:g} s") from None


class Probes:
    """The last known answer of each handler. For use on one event loop."""

    def __init__(self, executors: Mapping[str, Executor], *, user_namespaces: bool) -> None:
        """``executors`` may change. ``user_namespaces``: whether the node's kernel supports them."""
        self._executors = executors
        self._user_namespaces = user_namespaces
        self._probes: dict[str, tuple[Executor, LastAnswer[Features]]] = {}

    async def all(self) -> dict[str, Features | NoderuntimeError]:
        """Return the features of each current handler on this node, or the error of its probe."""
        handlers = tuple(self._executors.items())
        answers = await asyncio.gather(*(self._answer(name, executor) for name, executor in handlers))
        return {name: answer for (name, _), answer in zip(handlers, answers, strict=True)}

    async def features(self, handler: str) -> Features:
        """Return the features of a handler on this node. Raises the error of its probe.

        InvalidArgument if there is no such handler: a reload may have removed it.
        """
        executor = self._executors.get(handler)
        if executor is None:
            raise InvalidArgument(f"no runtime handler {handler[:80]!r} on this node")
        answer = await self._answer(handler, executor)
        if isinstance(answer, NoderuntimeError):
            raise answer
        return answer

    async def _answer(self, handler: str, executor: Executor) -> Features | NoderuntimeError:
        known = self._probes.get(handler)
        if known is None or known[0] is not executor:
            name = f"handler {executor.name}"
            known = self._probes[handler] = executor, LastAnswer(name, lambda: probe(executor))
        answer = await known[1].get(seconds=PROBE_SECONDS, renew=_RENEW_SECONDS, retry=_RETRY_SECONDS)
        if isinstance(answer, NoderuntimeError):
            return answer
        return replace(answer, user_namespaces=answer.user_namespaces and self._user_namespaces)
