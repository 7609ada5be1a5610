"""Carrying bytes between a client and what runs, both ways at once, each as slowly as its reader."""

from __future__ import annotations

import asyncio

from noderuntime.core.sessions import Stdio
from noderuntime.node.host.base import Conversation


async def relay(talk: Conversation, stdio: Stdio, *, stdin: bool, ends_with_input: bool = False) -> None:
    """Return when all output has been given to the client, or, where that ends it, when its input ended.

    Without ``stdin`` nothing is read from the client.
    """
    outputs = asyncio.ensure_future(_outputs(talk, stdio))
    inputs = asyncio.ensure_future(_inputs(talk, stdio)) if stdin else None
    sizes = asyncio.ensure_future(_sizes(talk, stdio))
    running = {task for task in (outputs, inputs, sizes) if task is not None}
    last = {outputs, inputs} if ends_with_input else {outputs}
    try:
        waiting = set(running)
        while not any(task in last for task in running - waiting):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises what it failed with
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


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
    async for rows, columns in stdio.sizes():
        await talk.resize(rows, columns)
