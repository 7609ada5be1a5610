"""Driving the command line of an OCI runtime: one binary, its global flags, and its words."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noderuntime.core.errors import HostError, NotFound, ToolError
from noderuntime.node.host.base import Completed, Host, Program
from noderuntime.node.host.words import one_line

TIMEOUT = 60.0
"""Seconds that a runtime may take for anything but an exec."""


class OciCommand:
    """An OCI runtime's binary with the flags that every call of it needs."""

    def __init__(self, host: Host, binary: Path, flags: Sequence[str]) -> None:
        self._host = host
        self.binary = binary
        self.flags = tuple(flags)

    async def call(self, verb: str, *arguments: str, timeout: float = TIMEOUT, stdin: bytes = b"") -> bytes:
        """Run one verb and return its standard output; ToolError carries its complaint."""
        done = await self.run(verb, *arguments, timeout=timeout, stdin=stdin)
        if done.returncode != 0:
            raise self.failure(verb, done)
        return done.stdout

    async def run(
        self,
        verb: str,
        *arguments: str,
        timeout: float = TIMEOUT,
        output_limit: int = 1 << 20,
        stdin: bytes = b"",
    ) -> Completed:
        """Run one verb and return how it ended; NotFound and ToolError when it cannot even be run."""
        with self._startable(verb):
            return await self._host.run(
                self._argv(verb, arguments), timeout=timeout, output_limit=output_limit, stdin=stdin
            )

    async def converse(self, verb: str, *arguments: str, stdin: bool, terminal: bool) -> Program:
        """Start one verb and hold its stdio; NotFound and ToolError when it cannot even be run."""
        with self._startable(verb):
            return await self._host.converse(self._argv(verb, arguments), stdin=stdin, terminal=terminal)

    async def query(self, verb: str, *arguments: str) -> Any:
        """Run one verb that answers in JSON."""
        answer = await self.call(verb, *arguments)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ToolError(self.binary.name, verb, 0, f"no JSON: {one_line(answer.decode())}") from error

    def _argv(self, verb: str, arguments: Sequence[str]) -> list[str]:
        return [str(self.binary), *self.flags, verb, *arguments]

    @contextmanager
    def _startable(self, verb: str) -> Iterator[None]:
        """Say what it means when the binary cannot be run."""
        try:
            yield
        except HostError as error:
            if error.errno == errno.ENOENT:
                raise NotFound(f"the runtime {self.binary} is missing") from error
            if error.errno in (errno.EACCES, errno.ENOEXEC):
                raise ToolError(self.binary.name, verb, error.errno, str(error)) from error
            raise

    def failure(self, verb: str, done: Completed) -> ToolError:
        """Make an error of a call that failed."""
        words = one_line((done.stderr or done.stdout).decode(errors="replace"))
        return ToolError(self.binary.name, verb, done.returncode, words)
