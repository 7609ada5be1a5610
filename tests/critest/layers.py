"""Image layers: deterministic tar archives, built in memory."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


class Layer:
    """One layer; entries keep the order in which they are added."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")  # noqa: SIM115 - closed by tar()
        self._directories: set[str] = set()

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory and its parents."""
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path not in self._directories:
                self._directories.add(path)
                entry = tarfile.TarInfo(path)
                entry.type, entry.mode = tarfile.DIRTYPE, mode if depth == len(parts) else 0o755
                self._tar.addfile(entry)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file that root owns."""
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), mode
        self._tar.addfile(entry, io.BytesIO(content))

    def hard_link(self, name: str, target: str) -> None:
        """Add a hard link to an existing file."""
        self._link(name, target, tarfile.LNKTYPE)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._link(name, target, tarfile.SYMTYPE)

    def tree(self, root: Path) -> None:
        """Add everything below a directory, owned by root."""
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if path.is_symlink():
                self.symlink(name, str(path.readlink()))
            elif path.is_dir():
                self.directory(name)
            elif path.is_file():
                self.file(name, path.read_bytes(), path.stat().st_mode & 0o7777)

    def tar(self) -> bytes:
        """Return the archive; no entry can be added afterwards."""
        self._tar.close()
        return self._buffer.getvalue()

    def _link(self, name: str, target: str, kind: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.mode = kind, target, 0o777
        self._tar.addfile(entry)
