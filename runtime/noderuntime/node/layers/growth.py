"""A layer's bytes in a file that may still be growing."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Blob(Protocol):
    """Compressed bytes that are read, by offset, while a download still appends to them."""

    def fileno(self) -> int:
        """Return a descriptor open for reading; it stays open until the unpacking ended."""

    async def beyond(self, offset: int) -> tuple[int, bool]:
        """Wait for more than ``offset`` bytes, or the end: how many there are, and whether that is all.

        Raises what went wrong when there will never be more.
        """


class Growth:
    """A :class:`Blob` for one writer and any number of readers.

    The writer calls :meth:`grew` after it wrote, then :meth:`finish` or :meth:`fail`.
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
        """Say that the file's first ``size`` bytes are there to be read."""
        self._size = size
        self._wake()

    def finish(self) -> None:
        """Say that nothing more will come."""
        self._complete = True
        self._wake()

    def fail(self, error: BaseException) -> None:
        """Say that the rest will never come; readers raise the error."""
        self._error = error
        self._wake()

    async def beyond(self, offset: int) -> tuple[int, bool]:
        """See :meth:`Blob.beyond`."""
        while True:
            if self._error is not None:
                raise self._error
            if self._size > offset or self._complete:
                return self._size, self._complete
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
