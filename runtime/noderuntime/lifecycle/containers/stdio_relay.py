"""Relay bytes between a client and a process, in both directions, with back pressure from each reader."""

from __future__ import annotations

from contextlib import aclosing

from noderuntime.core.sessions import Stdio
from noderuntime.core.tasks import Scope, first
from noderuntime.node.host.base import Conversation


async def relay(talk: Conversation, stdio: Stdio, *, stdin: bool, ends_with_input: bool = False) -> None:
    """Relay until the client has all output; with ``ends_with_input`` also until the client's input ends.

    Without ``stdin`` nothing is read from the client.
    """
    async with Scope() as scope:
        waiting = {
            outputs := scope.start(_outputs(talk, stdio), name="relay output"),
            scope.start(_sizes(talk, stdio), name="relay terminal sizes"),
        }
        last = {outputs}
        if stdin:
            inputs = scope.start(_inputs(talk, stdio), name="relay input")
            waiting.add(inputs)
            last |= {inputs} if ends_with_input else set()
        while last <= waiting:
            await first(*waiting)
            for task in [task for task in waiting if task.done()]:
                waiting.remove(task)
                task.result()  # raises the task's error


async def _outputs(talk: Conversation, stdio: Stdio) -> None:
    while True:
        stream, data = await talk.read()
        if not data:
            return
        await stdio.write(stream, data)


async def _inputs(talk: Conversation, stdio: Stdio) -> None:
    try:
        while data := await stdio.read():
            await talk.write(data)
    except BrokenPipeError:
        while await stdio.read():  # the process reads no more: drain, so that the client does not block
            pass
    talk.end_input()


async def _sizes(talk: Conversation, stdio: Stdio) -> None:
    async with aclosing(stdio.sizes()) as sizes:
        async for rows, columns in sizes:
            await talk.resize(rows, columns)
