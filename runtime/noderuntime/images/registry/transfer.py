"""A blob on its way: verified while it streams, resumed where it broke off, never waited for without end.

One :class:`Transfer` is one blob into one sink, from as many hosts and in as many pieces
as it takes. The sink only ever gets the next byte of the blob, and never one too many; the
digest is known when the last one is there. A host that stops early of its own accord,
announces another size or sends too much is lying and not asked again; one that breaks off
is asked for the rest, and for the whole where it cannot give the rest.
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
from noderuntime.images.registry.responses import Answer, failure
from noderuntime.images.registry.retry import Broken, MayPass, Unresumable, retrying
from noderuntime.images.remote import Descriptor, Hash, Patience, Sink

Open = Callable[[int], AbstractAsyncContextManager[Answer]]
"""Asks a host for a blob from an offset on, and yields an answer with status 200 or 206."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")
_WORTH_A_THREAD = 64 << 10
"""Bytes; hashing fewer takes less time than handing them over."""
_PROGRESS = 1 << 20
"""Bytes between two breaks that make the second one a first one again."""


class SinkFailed(Exception):
    """The sink could not take what came; no other host will help."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__("sink failed")


class Transfer:
    """One blob into one sink."""

    def __init__(self, descriptor: Descriptor, sink: Sink, patience: Patience) -> None:
        if not _DIGEST.fullmatch(descriptor.digest) or descriptor.size < 0:
            raise InvalidArgument(f"blob {descriptor.digest[:80]!a}: only sha256 digests can be verified")
        self._descriptor = descriptor
        self._sink = sink
        self._patience = patience
        self._hash: Hash = hashlib.sha256()
        self._begun = False
        self._failures = 0
        self._whole = False
        self.sources: list[str] = []
        """The hosts that bytes came from, in order."""

    @property
    def complete(self) -> bool:
        """All bytes are there."""
        return self._sink.offset >= self._descriptor.size

    async def fetch(self, open_: Open) -> None:
        """Get all that is missing from one host, and verify the whole.

        Unavailable, ResourceExhausted and the errors of ``open_`` leave the sink a prefix to go on from.
        DataLoss with :attr:`sources` not empty means that the sink holds garbage.
        """
        self._failures, self._whole = 0, False
        if not self._begun:
            self._hash, self._begun = await self._sink.hasher(), True
        if not self.complete:
            async for attempt in retrying(self._patience, self._given_up):
                with attempt:
                    await self._attempt(open_)
        if f"sha256:{self._hash.hexdigest()}" != self._descriptor.digest:
            senders = ", ".join(self.sources) or "the node's disk"
            raise DataLoss(f"{senders}: what came is not {self._descriptor.digest}")

    def _given_up(self, _: object) -> bool:
        return self._failures >= self._patience.attempts

    async def _attempt(self, open_: Open) -> None:
        start = self._sink.offset
        try:
            async with open_(0 if self._whole else start) as answer:
                await self._receive(answer)
        except MayPass as error:
            if self.complete:
                return
            self._whole = self._whole or isinstance(error, Unresumable)
            gained = self._sink.offset - start
            self._failures = 1 if gained >= _PROGRESS else self._failures + 1
            raise

    async def _receive(self, answer: Answer) -> None:
        """Take in the body from the offset on, whatever part of it the host chose to send."""
        start = _start(answer)
        skip = self._sink.offset - start
        if skip < 0:
            raise Unresumable(f"{answer.origin}: sends another range than it was asked for")
        self._announced(answer, start)
        pace = _Pace(self._patience)
        while chunk := await self._next(answer, pace):
            if skip:
                skip, chunk = max(0, skip - len(chunk)), chunk[skip:]
            if len(chunk) > self._descriptor.size - self._sink.offset:
                raise DataLoss(f"{answer.origin}: sends more than the {self._descriptor.size} bytes promised")
            if chunk:
                await self._take(chunk, answer.origin)
        if not self.complete:
            held, size = self._sink.offset, self._descriptor.size
            raise DataLoss(f"{answer.origin}: ends after {held} of the {size} bytes promised")

    def _announced(self, answer: Answer, start: int) -> None:
        length = answer.response.content_length
        expected = self._descriptor.size - start
        if length is not None and length != expected:
            raise DataLoss(f"{answer.origin}: announces {length} bytes where {expected} are promised")

    async def _next(self, answer: Answer, pace: _Pace) -> bytes:
        try:
            pace.begin()
            async with asyncio.timeout(self._patience.idle_seconds):
                chunk = await answer.response.content.readany()
            pace.end(len(chunk), answer.origin)
            return chunk
        except TimeoutError as error:
            raise Broken(f"{answer.origin}: sends nothing for {self._patience.idle_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise failure(answer.origin, error) from error

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
    """The least rate, over windows of time that was spent waiting."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._waited = 0.0
        self._received = 0
        self._since = 0.0

    def begin(self) -> None:
        """Start to wait."""
        self._since = monotonic()

    def end(self, received: int, origin: str) -> None:
        """Count what the wait brought; Unavailable when a whole window brought too little."""
        self._waited += monotonic() - self._since
        self._received += received
        if self._waited < self._patience.window_seconds:
            return
        if self._received < self._waited * self._patience.least_bytes_per_second:
            raise Unavailable(f"{origin}: too slow, {self._received} bytes in {self._waited:.0f} s")
        self._waited, self._received = 0.0, 0


def _start(answer: Answer) -> int:
    """Return which byte of the blob the body begins with (RFC 9110, 14.4)."""
    if answer.response.status != 206:
        return 0
    matched = _CONTENT_RANGE.fullmatch(answer.response.headers.get("Content-Range", ""))
    if matched is None:
        raise Unresumable(f"{answer.origin}: does not say which range it sends")
    return int(matched.group(1))
