"""The compressed bytes of a layer, in a file that a download may still append to."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Blob(Protocol):
    """A file of compressed bytes that can be read while a download appends to it."""

    def fileno(self) -> int:
        """Return a descriptor for reading. It must stay open until the layer is unpacked."""

    async def beyond(self, offset: int) -> tuple[int, bool]:
        """Wait until there are more than ``offset`` bytes or the file is complete; return (size, complete).

        Raises the error of a failed download.
        """


class GrowingFile:
    """A :class:`Blob` with one writer and any number of readers.

    The writer calls :meth:`grew` after each write, and finally :meth:`finish` or :meth:`fail`.
    """

    def __init__(self, fd: int, size: int = 0, *, complete: bool = False) -> None:
        self._fd = fd
        self._size = size
        self._complete = complete
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._fd

    def grew(self, size: int) -> None:
        """Announce that the file's first ``size`` bytes can be read."""
        self._size = size
        self._wake()

    def finish(self) -> None:
        """Announce that the file is complete."""
        self._complete = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Announce that the download failed. Readers raise the error."""
        self._error = error
        self._wake()

    async def beyond(self, offset: int) -> tuple[int, bool]:
        """Wait for more bytes. See :meth:`Blob.beyond`."""
        while True:
            if self._error is not None:
                raise self._error
            if self._size > offset or self._complete:
                return self._size, self._complete
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
