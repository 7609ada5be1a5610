"""The command line of an OCI runtime: one binary, its global flags, and its errors."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noderuntime.core.errors import HostError, NotFound, ToolError
from noderuntime.node.host.base import Completed, Host, Program
from noderuntime.node.host.messages import one_line

TIMEOUT = 60.0
"""The deadline of every call but ``exec``, in seconds."""


class OciCommand:
    """The binary of an OCI runtime, with the flags that every call needs."""

    def __init__(self, host: Host, binary: Path, flags: Sequence[str]) -> None:
        self._host = host
        self.binary = binary
        self.flags = tuple(flags)

    async def call(self, verb: str, *arguments: str, timeout: float = TIMEOUT, stdin: bytes = b"") -> bytes:
        """Run one verb and return its standard output. ToolError with its error message if it fails."""
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
        """Run one verb and return its result. NotFound or ToolError if the binary cannot be executed."""
        with self._startable(verb):
            return await self._host.run(
                self._argv(verb, arguments), timeout=timeout, output_limit=output_limit, stdin=stdin
            )

    async def converse(self, verb: str, *arguments: str, stdin: bool, terminal: bool) -> Program:
        """Start one verb and return it with its stdio. NotFound or ToolError if it cannot be executed."""
        with self._startable(verb):
            return await self._host.converse(self._argv(verb, arguments), stdin=stdin, terminal=terminal)

    async def query(self, verb: str, *arguments: str) -> Any:
        """Run one verb and return its JSON output. ToolError if it fails or its output is not JSON."""
        answer = await self.call(verb, *arguments)
        try:
            return json.loads(answer)
        except ValueError as error:
            raise ToolError(self.binary.name, verb, 0, f"not JSON: {one_line(answer.decode())}") from error

    def _argv(self, verb: str, arguments: Sequence[str]) -> list[str]:
        return [str(self.binary), *self.flags, verb, *arguments]

    @contextmanager
    def _startable(self, verb: str) -> Iterator[None]:
        """Translate the HostError of a binary that cannot be executed."""
        try:
            yield
        except HostError as error:
            if error.errno == errno.ENOENT:
                raise NotFound(f"the runtime {self.binary} is missing") from error
            if error.errno in (errno.EACCES, errno.ENOEXEC):
                raise ToolError(self.binary.name, verb, error.errno, str(error)) from error
            raise

    def failure(self, verb: str, done: Completed) -> ToolError:
        """Return the error of a failed call, with the last error message of its output."""
        message = one_line((done.stderr or done.stdout).decode(errors="replace"))
        return ToolError(self.binary.name, verb, done.returncode, message)
