"""The features of handlers, as their binaries report them.

Each handler is probed on its own, so that a binary that hangs delays no other handler. Callers get the last
known answer at once, and an old answer is renewed in the background. Only a handler without any answer is
waited for, until the deadline of its probe.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import replace

from noderuntime.core import log, tasks
from noderuntime.core.errors import DeadlineExceeded, Internal, NoderuntimeError
from noderuntime.node.executor.base import Executor, Features

_log = log.get(__name__)

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
        raise _hangs(executor) from None


class Probes:
    """The last known answer of each handler. For use on one event loop."""

    def __init__(self, executors: Mapping[str, Executor], *, user_namespaces: bool) -> None:
        """``executors`` may change. ``user_namespaces``: whether the node's kernel supports them."""
        self._executors = executors
        self._user_namespaces = user_namespaces
        self._probes: dict[str, _Probe] = {}

    async def all(self) -> dict[str, Features | NoderuntimeError]:
        """Return the features of each current handler on this node, or the error of its probe."""
        handlers = tuple(self._executors.items())
        answers = await asyncio.gather(*(self._answer(name, executor) for name, executor in handlers))
        return {name: answer for (name, _), answer in zip(handlers, answers, strict=True)}

    async def features(self, handler: str) -> Features:
        """Return the features of a handler on this node. Raises the error of its probe."""
        answer = await self._answer(handler, self._executors[handler])
        if isinstance(answer, NoderuntimeError):
            raise answer
        return answer

    async def _answer(self, handler: str, executor: Executor) -> Features | NoderuntimeError:
        known = self._probes.get(handler)
        if known is None or known.executor is not executor:
            known = self._probes[handler] = _Probe(executor)
        answer = await known.answer()
        if isinstance(answer, NoderuntimeError):
            return answer
        return replace(answer, user_namespaces=answer.user_namespaces and self._user_namespaces)


class _Probe:
    """The last known answer of one handler. At most one probe of it runs at a time."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._answer: Features | NoderuntimeError | None = None
        self._began = -math.inf
        self._running: asyncio.Task[None] | None = None

    async def answer(self) -> Features | NoderuntimeError:
        """Return the last known answer. Wait only if there is none."""
        if self._running is None and self._age() > self._lifetime():
            self._began = time.monotonic()
            self._running = tasks.background(self._run(), name=f"probe handler {self.executor.name}")
        if self._running is not None and self._answer is None:
            await tasks.first(self._running, timeout=max(0.0, PROBE_SECONDS - self._age()))
        if self._answer is None or (self._running is not None and self._age() > PROBE_SECONDS):
            return _hangs(self.executor)  # and does not end when it is killed
        return self._answer

    async def _run(self) -> None:
        before = self._answer
        self._answer = await self._ask()
        self._running = None
        if isinstance(self._answer, NoderuntimeError) and str(self._answer) != str(before):
            _log.warning("handler is broken", handler=self.executor.name, error=self._answer)
        elif isinstance(before, NoderuntimeError) and isinstance(self._answer, Features):
            _log.info("handler works again", handler=self.executor.name)

    async def _ask(self) -> Features | NoderuntimeError:
        try:
            return await probe(self.executor)
        except NoderuntimeError as error:
            return error
        except Exception as error:  # one handler's unforeseen output must not fail the node's Status
            _log.exception("probe of a handler failed unexpectedly", handler=self.executor.name)
            return Internal(f"probe of handler {self.executor.name} failed: {type(error).__name__}: {error}")

    def _age(self) -> float:
        """Return the seconds since the last probe began."""
        return time.monotonic() - self._began

    def _lifetime(self) -> float:
        return _RENEW_SECONDS if isinstance(self._answer, Features) else _RETRY_SECONDS


def _hangs(executor: Executor) -> DeadlineExceeded:
    return DeadlineExceeded(f"handler {executor.name} did not answer within {PROBE_SECONDS:g} s")
