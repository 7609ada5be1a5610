"""Content by digest: documents, and layers while they are downloaded.

    blobs/sha256/HEX   indexes, manifests and configs; ``.new`` until they are complete
    partial/HEX        a prefix of a compressed layer

A document gets its name when it is complete, verified and synced (temporary file, fsync, rename), and is
verified again when it is read. A layer is unpacked while it is downloaded and is not needed afterwards, so
it is in ``partial`` only meanwhile. An interrupted pull leaves its prefix, which the next pull resumes or
garbage collection removes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from weakref import WeakValueDictionary

from noderuntime.core import log
from noderuntime.core.blocking import on_files
from noderuntime.core.durable_files import sync_directory
from noderuntime.core.errors import DataLoss, Unavailable
from noderuntime.images.store.ingest import Ingest

_log = log.get(__name__)

_ALGORITHM = "sha256:"
_NEW = ".new"
_LARGEST_DOCUMENT = 8 << 20


class Content:
    """The blobs of one store."""

    def __init__(self, root: Path) -> None:
        """Use a directory and create its subdirectories if needed. Blocks: call it at start only."""
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        for directory in (self._blobs, self._partial):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._documents = asyncio.Lock()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._wanted: Counter[str] = Counter()

    async def put(self, digest: str, content: bytes) -> None:
        """Store a document. DataLoss if the content does not have the digest."""
        async with self._documents:
            await on_files(f"store {digest}", lambda: self._put(digest, content))

    async def get(self, digest: str) -> bytes | None:
        """Return a document, or None if it does not exist. A damaged one is removed."""
        async with self._documents:
            return await on_files(f"read {digest}", lambda: self.read(digest))

    def read(self, digest: str) -> bytes | None:
        """Return what :meth:`get` returns. Blocks."""
        path = self._blobs / _hex(digest)
        try:
            with path.open("rb") as file:
                content = file.read(_LARGEST_DOCUMENT + 1)
        except FileNotFoundError:
            return None
        if _digest(content) == digest:
            return content
        _log.warning("document is damaged, removing it", digest=digest)
        path.unlink(missing_ok=True)
        return None

    @asynccontextmanager
    async def ingest(self, digest: str, size: int, *, restart: bool = False) -> AsyncIterator[Ingest]:
        """Open a layer's file to download it. It contains the prefix of an earlier pull, unless ``restart``.

        Calls with the same digest run one at a time. At the end the file is removed, unless another call
        waits for it, or the error is one that a retry can resolve: Unavailable, or a cancelled caller.
        """
        path = self._partial / _hex(digest)
        self._wanted[digest] += 1
        keep = False
        try:
            async with self._lock(digest):
                ingest = await on_files(f"write {path}", lambda: Ingest(path, size, restart=restart))
                try:
                    yield ingest
                    keep = self._wanted[digest] > 1
                except (Unavailable, asyncio.CancelledError):
                    keep = True
                    raise
                finally:
                    await ingest.close()
                    if not keep:
                        await on_files(f"remove {path}", lambda: path.unlink(missing_ok=True))
        finally:
            self._wanted[digest] -= 1
            if not self._wanted[digest]:
                del self._wanted[digest]

    async def drop_partial(self, is_abandoned: Callable[[str, float], bool]) -> int:
        """Remove abandoned partial layers and return their number.

        ``is_abandoned`` gets the digest and the age in seconds. Layers of a running pull are kept.
        """
        return await on_files("list partial layers", lambda: self._drop_partial(is_abandoned))

    async def drop_documents(self, needed: Callable[[], Collection[str]]) -> int:
        """Remove all documents but the needed ones, and temporary files; return the number of files.

        Other calls to read or store a document wait from the call of ``needed`` to the end.
        """
        async with self._documents:
            kept = {_hex(digest) for digest in needed()}

            def drop() -> int:
                return _remove(path for path in self._blobs.iterdir() if path.name not in kept)

            return await on_files("list documents", drop)

    async def size(self) -> tuple[int, int]:
        """Return the disk usage of all files in bytes, and their number."""

        def add_up() -> tuple[int, int]:
            blocks = files = 0
            for directory in (self._blobs, self._partial):
                for path in directory.iterdir():
                    with suppress(FileNotFoundError):
                        blocks += path.stat().st_blocks
                        files += 1
            return blocks * 512, files

        return await on_files("measure documents", add_up)

    def _put(self, digest: str, content: bytes) -> None:
        if _digest(content) != digest:
            raise DataLoss(f"the content does not have the digest {digest}")
        fd, name = tempfile.mkstemp(_NEW, dir=self._blobs)
        new = Path(name)
        try:
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
            new.rename(self._blobs / _hex(digest))
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync_directory(self._blobs)

    def _drop_partial(self, is_abandoned: Callable[[str, float], bool]) -> int:
        now = time.time()

        def dropped() -> Iterable[Path]:
            for path in self._partial.iterdir():
                digest = _ALGORITHM + path.name
                with suppress(FileNotFoundError):
                    if digest not in self._wanted and is_abandoned(digest, now - path.stat().st_mtime):
                        yield path

        return _remove(dropped())

    def _lock(self, digest: str) -> asyncio.Lock:
        lock = self._locks.get(digest)
        if lock is None:
            lock = self._locks[digest] = asyncio.Lock()
        return lock


def _hex(digest: str) -> str:
    return digest.removeprefix(_ALGORITHM)


def _digest(content: bytes) -> str:
    return _ALGORITHM + hashlib.sha256(content).hexdigest()


def _remove(paths: Iterable[Path]) -> int:
    count = 0
    for path in paths:
        path.unlink(missing_ok=True)
        count += 1
    return count
