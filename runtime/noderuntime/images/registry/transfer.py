"""Downloads a blob: verifies it while it streams, resumes it after a failure, and limits every wait.

A :class:`Transfer` downloads one blob into one sink, from as many hosts and in as many requests as needed.
The sink only receives the next bytes of the blob, never more than its size; the digest is checked
after the last byte. A host that closes the body early without an error, announces another size or sends
too much violates the protocol and is not asked again. After a broken connection the rest is requested, or the
whole blob if the host cannot resume.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from time import monotonic

import aiohttp

from noderuntime.core.blocking import IMAGES
from noderuntime.core.errors import DataLoss, InvalidArgument, Unavailable
from noderuntime.images.registry.responses import Response, connection_error
from noderuntime.images.registry.retry import Broken, Transient, Unresumable, retrying
from noderuntime.images.remote import Descriptor, Hash, RetryPolicy, Sink

Open = Callable[[int], AbstractAsyncContextManager[Response]]
"""Requests a blob from an offset on, and yields a response with status 200 or 206."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")
_WORTH_A_THREAD = 64 << 10
"""Bytes; hashing fewer takes less time than the switch to a thread."""
_PROGRESS = 1 << 20
"""Bytes received since the last failure that reset the count of failures."""


class SinkFailed(Exception):
    """The sink failed to write. Another host cannot help."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__("sink failed")


class Transfer:
    """The download of one blob into one sink."""

    def __init__(self, descriptor: Descriptor, sink: Sink, policy: RetryPolicy) -> None:
        if not _DIGEST.fullmatch(descriptor.digest) or descriptor.size < 0:
            raise InvalidArgument(f"blob {descriptor.digest[:80]!a}: only sha256 digests can be verified")
        self._descriptor = descriptor
        self._sink = sink
        self._policy = policy
        self._hash: Hash = hashlib.sha256()
        self._started = False
        self._failures = 0
        self._from_start = False
        self.sources: list[str] = []
        """The hosts that sent bytes, in order."""

    @property
    def complete(self) -> bool:
        """Whether all bytes have arrived."""
        return self._sink.offset >= self._descriptor.size

    async def fetch(self, open_: Open) -> None:
        """Download the missing bytes from one host, and verify the digest of the blob.

        After Unavailable, ResourceExhausted and the errors of ``open_`` the sink holds a valid prefix.
        After DataLoss with a non-empty :attr:`sources` the sink holds corrupt content.
        """
        self._failures, self._from_start = 0, False
        if not self._started:
            self._hash, self._started = await self._sink.hasher(), True
        if not self.complete:
            async for attempt in retrying(self._policy, self._attempts_are_used):
                with attempt:
                    await self._attempt(open_)
        if f"sha256:{self._hash.hexdigest()}" != self._descriptor.digest:
            senders = ", ".join(self.sources) or "the node's disk"
            raise DataLoss(f"{senders}: the content does not have the digest {self._descriptor.digest}")

    def _attempts_are_used(self, _: object) -> bool:
        return self._failures >= self._policy.attempts

    async def _attempt(self, open_: Open) -> None:
        start = self._sink.offset
        try:
            async with open_(0 if self._from_start else start) as response:
                await self._receive(response)
        except Transient as error:
            if self.complete:
                return
            self._from_start = self._from_start or isinstance(error, Unresumable)
            gained = self._sink.offset - start
            self._failures = 1 if gained >= _PROGRESS else self._failures + 1
            raise

    async def _receive(self, response: Response) -> None:
        """Write the body to the sink, from the sink's offset on, whichever range the host sends."""
        start = _start(response)
        skip = self._sink.offset - start
        if skip < 0:
            raise Unresumable(f"{response.origin}: sent a range that was not requested")
        self._check_length(response, start)
        pace = _Pace(self._policy)
        while chunk := await self._next(response, pace):
            if skip:
                skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
            if len(chunk) > self._descriptor.size - self._sink.offset:
                raise DataLoss(
                    f"{response.origin}: sent more than the expected {self._descriptor.size} bytes"
                )
            if chunk:
                await self._take(chunk, response.origin)
        if not self.complete:
            held, size = self._sink.offset, self._descriptor.size
            raise DataLoss(f"{response.origin}: ended after {held} of {size} expected bytes")

    def _check_length(self, response: Response, start: int) -> None:
        length = response.http.content_length
        expected = self._descriptor.size - start
        if length is not None and length != expected:
            raise DataLoss(f"{response.origin}: announced {length} bytes, expected {expected}")

    async def _next(self, response: Response, pace: _Pace) -> bytes:
        try:
            pace.begin()
            async with asyncio.timeout(self._policy.idle_seconds):
                chunk = await response.http.content.readany()
            pace.end(len(chunk), response.origin)
            return chunk
        except TimeoutError as error:
            raise Broken(f"{response.origin}: sent nothing for {self._policy.idle_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise connection_error(response.origin, error) from error

    async def _take(self, chunk: bytes, origin: str) -> None:
        if origin not in self.sources:
            self.sources.append(origin)
        hashing = None
        if len(chunk) >= _WORTH_A_THREAD:
            hashing = IMAGES.begin(self._hash.update, chunk)
        else:
            self._hash.update(chunk)
        try:
            await self._sink.write(chunk)
        except Exception as error:
            raise SinkFailed(error) from error
        finally:
            if hashing is not None:
                await hashing


class _Pace:
    """A check of the minimum transfer rate, over windows of the time spent waiting for the body."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._waited = 0.0
        self._received = 0
        self._since = 0.0

    def begin(self) -> None:
        """Start to measure a wait."""
        self._since = monotonic()

    def end(self, received: int, origin: str) -> None:
        """Count the bytes that arrived. Unavailable if a whole window was below the minimum rate."""
        self._waited += monotonic() - self._since
        self._received += received
        if self._waited < self._policy.window_seconds:
            return
        if self._received < self._waited * self._policy.least_bytes_per_second:
            raise Unavailable(f"{origin}: too slow, {self._received} bytes in {self._waited:.0f} s")
        self._waited, self._received = 0.0, 0


def _start(response: Response) -> int:
    """Return the offset in the blob at which the body starts (RFC 9110, 14.4)."""
    if response.http.status != 206:
        return 0
    matched = _CONTENT_RANGE.fullmatch(response.http.headers.get("Content-Range", ""))
    if matched is None:
        raise Unresumable(f"{response.origin}: sent no valid Content-Range")
    return int(matched.group(1))
