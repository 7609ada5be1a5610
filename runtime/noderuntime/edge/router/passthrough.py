"""Between a caller's context and the upstream: bytes, metadata, deadline, cancellation and status.

A relayed call looks to the caller as if the upstream had answered it directly.
Joined calls put our answer behind the upstream's: in protobuf, messages that are
written one after the other merge, so a list's bytes need no parsing. **A joined
call fails when the upstream fails**: half a list looks to the kubelet like dead pods.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from noderuntime.core import tasks
from noderuntime.edge.router.upstream import Metadata, Upstream

Context = grpc.aio.ServicerContext[bytes, bytes]
Ours = Callable[[], Awaitable[bytes]]
"""Makes our serialized part of a joined answer."""

_HOP = ("user-agent", "content-type", "te")
"""Metadata of the connection itself, which our own connection to the upstream sets."""


async def unary(upstream: Upstream, path: str, request: bytes, context: Context) -> bytes:
    """Relay a call with one request and one reply; raises UpstreamStatus."""
    call = upstream.unary(path, request, timeout=context.time_remaining(), metadata=request_metadata(context))
    reply = await call.reply()
    await _tell_metadata(context, reply.initial, reply.trailing)
    return reply.body


async def joined(upstream: Upstream, path: str, request: bytes, context: Context, ours: Ours) -> bytes:
    """Relay a call and put our answer behind the upstream's; both are made at the same time."""
    call = upstream.unary(path, request, timeout=context.time_remaining(), metadata=request_metadata(context))
    try:
        mine = await ours()
    except BaseException:
        call.cancel()
        raise
    theirs = await call.reply()
    await _tell_metadata(context, theirs.initial, theirs.trailing)
    return theirs.body + mine


async def stream(upstream: Upstream, path: str, request: bytes, context: Context) -> AsyncIterator[bytes]:
    """Relay a call with one request and any number of replies; raises UpstreamStatus."""
    call = upstream.stream(
        path, request, timeout=context.time_remaining(), metadata=request_metadata(context)
    )
    initial = await call.initial_metadata()
    if initial:
        await context.send_initial_metadata(initial)
    async for body in call:
        yield body
    trailing = await call.trailing_metadata()
    if trailing:
        context.set_trailing_metadata(trailing)


async def merged_stream(
    upstream: Upstream, path: str, request: bytes, context: Context, ours: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Give the messages of both sides as they come; ends as soon as one side ends or fails."""
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(maxsize=1)

    async def pump(messages: AsyncIterator[bytes]) -> None:
        try:
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
    """Return what the caller sent along, without what belongs to its own connection."""
    return tuple(
        (key, value)
        for key, value in context.invocation_metadata() or ()
        if key not in _HOP and not key.startswith((":", "grpc-"))
    )


async def _tell_metadata(context: Context, initial: Metadata, trailing: Metadata) -> None:
    if initial:
        await context.send_initial_metadata(initial)
    if trailing:
        context.set_trailing_metadata(trailing)
