"""Sessions that a test defines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from noderuntime.core.sessions import Command, Stdio, Streams


def command(
    run: Callable[[Stdio], Awaitable[int]],
    *,
    stdin: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    tty: bool = False,
) -> Command:
    """Return a session that runs a function."""
    return Command("exec", Streams(stdin, stdout, stderr and not tty, tty), run)
