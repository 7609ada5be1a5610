"""The CRI runtime that the node already had, spoken to in bytes.

Nothing here knows a message: requests and replies are passed as they came.
What the upstream answers instead of a reply is raised as :class:`UpstreamStatus`,
so that the server can hand on code, details and trailing metadata unchanged.

The channel connects when it is first used and again, within a second, whenever
the upstream comes back. Until then calls fail at once with UNAVAILABLE: the
kubelet repeats them, and a call that waited would hold up its sync loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

MAX_MESSAGE_BYTES = 16 << 20
"""The largest message either way: what kubelet and containerd allow as well."""

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
    """What the upstream answered instead of a reply."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Metadata = ()) -> None:
        self.code = code
        self.details = details
        self.trailing = trailing
        super().__init__(f"{code.name}: {details}")


@dataclass(frozen=True, slots=True)
class Reply:
    """A unary reply with the metadata that came before and after it."""

    body: bytes
    initial: Metadata
    trailing: Metadata


class UnaryCall:
    """A call that is under way; it was sent when this was made."""

    def __init__(self, upstream: Upstream, call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> None:
        self._upstream = upstream
        self._call = call

    async def reply(self) -> Reply:
        """Wait for the answer; cancelling the waiting task cancels the call."""
        try:
            body = await self._call
        except grpc.aio.AioRpcError as error:
            raise self._upstream.status_of(error) from None
        return Reply(
            body, _plain(await self._call.initial_metadata()), _plain(await self._call.trailing_metadata())
        )

    def cancel(self) -> None:
        """Give up; the upstream is told."""
        self._call.cancel()


class StreamCall:
    """A call with a stream of replies, under way."""

    def __init__(self, upstream: Upstream, call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> None:
        self._upstream = upstream
        self._call = call

    async def initial_metadata(self) -> Metadata:
        """Wait for what comes before the first reply (or instead of it)."""
        return _plain(await self._call.initial_metadata())

    async def trailing_metadata(self) -> Metadata:
        """Wait for what comes behind the last reply."""
        return _plain(await self._call.trailing_metadata())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for body in self._call:
                yield body
        except grpc.aio.AioRpcError as error:
            raise self._upstream.status_of(error) from None
        finally:
            self._call.cancel()


class Upstream:
    """A client of the upstream socket; ``on_error`` is told the name of each code that is not OK."""

    def __init__(self, socket: Path, on_error: Callable[[str], None] = lambda _code: None) -> None:
        self._socket = socket
        self._on_error = on_error
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_OPTIONS)
        self._unary: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def unary(
        self, path: str, request: bytes, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> UnaryCall:
        """Send a request, given the call's path; timeout in seconds."""
        send = self._unary.get(path)
        if send is None:
            send = self._unary[path] = self._channel.unary_unary(path)
        return UnaryCall(self, send(request, timeout=timeout, metadata=metadata))

    def stream(
        self, path: str, request: bytes, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> StreamCall:
        """Send a request whose answer is any number of replies; on the wire one reply is a stream too."""
        send: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        return StreamCall(self, send(request, timeout=timeout, metadata=metadata))

    def status_of(self, error: grpc.aio.AioRpcError) -> UpstreamStatus:
        """Tell the upstream's own answer from our failure to reach it."""
        self._on_error(error.code().name)
        details = error.details() or ""
        if error.code() is grpc.StatusCode.UNAVAILABLE and not self._connected():
            reason = " ".join(details.split())[:_ONE_LINE]
            return UpstreamStatus(
                error.code(), f"the node's own runtime at {self._socket} does not answer: {reason}"
            )
        return UpstreamStatus(error.code(), details, _plain(error.trailing_metadata()))

    async def close(self) -> None:
        """Hang up; calls under way are cancelled."""
        await self._channel.close()

    def _connected(self) -> bool:
        return self._channel.get_state() is grpc.ChannelConnectivity.READY


def _plain(metadata: grpc.aio.Metadata | None) -> Metadata:
    return tuple(metadata) if metadata else ()
