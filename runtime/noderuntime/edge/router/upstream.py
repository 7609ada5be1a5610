"""A client of the upstream, the node's CRI runtime, on the level of bytes.

Requests and responses are passed on unparsed. An error of the upstream is raised as
:class:`UpstreamStatus`, so that the server can return its code, details and trailing metadata unchanged.

The channel connects at first use, and reconnects within a second after the upstream returns. Until then
calls fail at once with UNAVAILABLE: the kubelet retries them, and a call that waits would block its sync
loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

MAX_MESSAGE_BYTES = 16 << 20
"""The maximum message size in both directions, as in kubelet and containerd."""

Metadata = tuple[tuple[str, str | bytes], ...]

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
_ONE_LINE = 1024


class UpstreamStatus(Exception):
    """An error status of the upstream."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Metadata = ()) -> None:
        self.code = code
        self.details = details
        self.trailing = trailing
        super().__init__(f"{code.name}: {details}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A unary response with its initial and trailing metadata."""

    body: bytes
    initial: Metadata
    trailing: Metadata


class UnaryCall:
    """A unary call in progress. Its request has been sent."""

    def __init__(self, upstream: Upstream, call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> None:
        self._upstream = upstream
        self._call = call

    async def reply(self) -> Reply:
        """Wait for the response. Cancelling the waiting task cancels the call."""
        try:
            body = await self._call
        except grpc.aio.AioRpcError as error:
            raise self._upstream.status_of(error) from None
        return Reply(
            body, _plain(await self._call.initial_metadata()), _plain(await self._call.trailing_metadata())
        )

    def cancel(self) -> None:
        """Cancel the call."""
        self._call.cancel()


class StreamCall:
    """A server-streaming call in progress."""

    def __init__(self, upstream: Upstream, call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> None:
        self._upstream = upstream
        self._call = call

    async def initial_metadata(self) -> Metadata:
        """Wait for the initial metadata and return it."""
        return _plain(await self._call.initial_metadata())

    async def trailing_metadata(self) -> Metadata:
        """Wait for the trailing metadata and return it."""
        return _plain(await self._call.trailing_metadata())

    async def messages(self) -> AsyncGenerator[bytes]:
        """Yield the responses. Raises UpstreamStatus. The call is cancelled at the end."""
        try:
            async for body in self._call:
                yield body
        except grpc.aio.AioRpcError as error:
            raise self._upstream.status_of(error) from None
        finally:
            self._call.cancel()


class Upstream:
    """A client of the upstream's socket. ``on_error`` is called with the name of each code other than OK."""

    def __init__(self, socket: Path, on_error: Callable[[str], None] = lambda _code: None) -> None:
        self._socket = socket
        self._on_error = on_error
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self._unary: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def unary(
        self, path: str, request: bytes, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> UnaryCall:
        """Send the request of a unary call by its path. The timeout is in seconds."""
        send = self._unary.get(path)
        if send is None:
            send = self._unary[path] = self._channel.unary_unary(path)
        return UnaryCall(self, send(request, timeout=timeout, metadata=metadata))

    def stream(
        self, path: str, request: bytes, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> StreamCall:
        """Send the request of a server-streaming call. On the wire a unary response is the same."""
        send: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        return StreamCall(self, send(request, timeout=timeout, metadata=metadata))

    def status_of(self, error: grpc.aio.AioRpcError) -> UpstreamStatus:
        """Return the error as UpstreamStatus, with our own details if the upstream cannot be reached."""
        self._on_error(error.code().name)
        details = error.details() or ""
        if error.code() is grpc.StatusCode.UNAVAILABLE and not self._connected():
            reason = " ".join(details.split())[:_ONE_LINE]
            return UpstreamStatus(
                error.code(), f"the node's own runtime at {self._socket} is not available: {reason}"
            )
        return UpstreamStatus(error.code(), details, _plain(error.trailing_metadata()))

    async def close(self) -> None:
        """Close the connection. Calls in progress are cancelled."""
        await self._channel.close()

    def _connected(self) -> bool:
        return self._channel.get_state() is grpc.ChannelConnectivity.READY


def _plain(metadata: grpc.aio.Metadata | None) -> Metadata:
    return tuple(metadata) if metadata else ()
