"""Sessions that a test scripts."""

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
    """Make a session out of a function."""
    return Command("exec", Streams(stdin, stdout, stderr and not tty, tty), run)
