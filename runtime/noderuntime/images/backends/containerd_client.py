"""Calls containerd's gRPC services, with its namespace, deadlines and errors of :mod:`noderuntime.core`.

The channel reconnects on its own. While the socket is not served, calls fail at once with Unavailable.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from noderuntime.core.codes import error_of
from noderuntime.core.errors import NoderuntimeError, Unavailable

_DEADLINE = 60.0
"""Seconds; a snapshot on a busy disk takes a few."""

_MESSAGE_LIMIT = 16 << 20

_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

M = TypeVar("M")


class ContainerdClient:
    """A connection to one namespace of containerd. Create it inside the event loop."""

    def __init__(self, socket: Path, namespace: str) -> None:
        self._socket = socket
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self._metadata = (("containerd-namespace", namespace),)

    async def call(self, method: str, request: Message, parse: Callable[[bytes], M]) -> M:
        """Make a unary call. ``method`` is ``package.Service/Method``."""
        stub = self._channel.unary_unary(f"/{method}", _encode, parse)
        try:
            return await stub(request, timeout=_DEADLINE, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise self._translate(method, error) from error

    async def stream(self, method: str, request: Message, parse: Callable[[bytes], M]) -> AsyncGenerator[M]:
        """Make a server-streaming call."""
        stub = self._channel.unary_stream(f"/{method}", _encode, parse)
        answers: Any = stub(request, timeout=_DEADLINE, metadata=self._metadata)
        try:
            async for answer in answers:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._translate(method, error) from error
        finally:
            answers.cancel()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    def _translate(self, method: str, error: grpc.aio.AioRpcError) -> NoderuntimeError:
        kind = error_of(error.code())
        message = " ".join((error.details() or error.code().name).split())[:500]
        if kind is Unavailable:
            return kind(f"containerd at {self._socket} is not available: {message}")
        return kind(f"containerd {method.rpartition('.')[2]}: {message}")


def _encode(message: Message) -> bytes:
    return message.SerializeToString()
