"""Carrying bytes between a client and what runs, both ways at once, each as slowly as its reader."""

from __future__ import annotations

from contextlib import aclosing

from noderuntime.core.sessions import Stdio
from noderuntime.core.tasks import Scope, first
from noderuntime.node.host.base import Conversation


async def relay(talk: Conversation, stdio: Stdio, *, stdin: bool, ends_with_input: bool = False) -> None:
    """Return when all output has been given to the client, or, where that ends it, when its input ended.

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
                task.result()  # raises what it failed with


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
        while await stdio.read():  # it reads no more, but the client's connection must not stand still
            pass
    talk.end_input()


async def _sizes(talk: Conversation, stdio: Stdio) -> None:
    async with aclosing(stdio.sizes()) as sizes:
        async for rows, columns in sizes:
            await talk.resize(rows, columns)
