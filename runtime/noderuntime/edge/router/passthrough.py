"""Relays calls to the upstream: bytes, metadata, deadline, cancellation and status.

To the caller a relayed call looks as if the upstream had answered it directly. Joined calls append our
response to the upstream's: concatenated protobuf messages merge, so a list is not parsed. **A joined call
fails if the upstream fails**: to the kubelet a partial list looks like dead pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import grpc

from noderuntime.core import tasks
from noderuntime.edge.router.upstream import Metadata, Upstream

Context = grpc.aio.ServicerContext[bytes, bytes]
Ours = Callable[[], Awaitable[bytes]]
"""Returns our serialized part of a joined response."""

_HOP = ("user-agent", "content-type", "te")
"""Metadata of the connection, which our connection to the upstream sets itself."""


async def unary(upstream: Upstream, path: str, request: bytes, context: Context) -> bytes:
    """Relay a unary call. Raises UpstreamStatus."""
    call = upstream.unary(path, request, timeout=context.time_remaining(), metadata=request_metadata(context))
    reply = await call.reply()
    await _send_metadata(context, reply.initial, reply.trailing)
    return reply.body


async def joined(upstream: Upstream, path: str, request: bytes, context: Context, ours: Ours) -> bytes:
    """Relay a unary call and append our response, which is produced at the same time."""
    call = upstream.unary(path, request, timeout=context.time_remaining(), metadata=request_metadata(context))
    try:
        mine = await ours()
    except BaseException:
        call.cancel()
        raise
    theirs = await call.reply()
    await _send_metadata(context, theirs.initial, theirs.trailing)
    return theirs.body + mine


async def stream(upstream: Upstream, path: str, request: bytes, context: Context) -> AsyncGenerator[bytes]:
    """Relay a server-streaming call. Raises UpstreamStatus."""
    call = upstream.stream(
        path, request, timeout=context.time_remaining(), metadata=request_metadata(context)
    )
    async with aclosing(call.messages()) as bodies:
        initial = await call.initial_metadata()
        if initial:
            await context.send_initial_metadata(initial)
        async for body in bodies:
            yield body
    trailing = await call.trailing_metadata()
    if trailing:
        context.set_trailing_metadata(trailing)


async def merged_stream(
    upstream: Upstream, path: str, request: bytes, context: Context, ours: AsyncGenerator[bytes]
) -> AsyncGenerator[bytes]:
    """Yield the messages of both sides as they arrive. Ends when either side ends or fails."""
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(maxsize=1)

    async def pump(messages: AsyncGenerator[bytes]) -> None:
        try:
            async with aclosing(messages):
                async for body in messages:
                    await queue.put(body)
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    theirs = stream(upstream, path, request, context)
    async with tasks.Scope() as scope:
        for side in (theirs, ours):
            scope.start(pump(side), name="merge a stream of both sides")
        while isinstance(item := await queue.get(), bytes):
            yield item
        if item is not None:
            raise item


def request_metadata(context: Context) -> Metadata:
    """Return the caller's metadata, without that of its connection."""
    return tuple(
        (key, value)
        for key, value in context.invocation_metadata() or ()
        if key not in _HOP and not key.startswith((":", "grpc-"))
    )


async def _send_metadata(context: Context, initial: Metadata, trailing: Metadata) -> None:
    if initial:
        await context.send_initial_metadata(initial)
    if trailing:
        context.set_trailing_metadata(trailing)
