"""A snapshotter on overlayfs.

All files are below one directory, which only root can access:

    layers/NUMBER         committed layers; new-… are staged or being removed
    snapshots/KEY/fs      the container's writable directory (upperdir)
    snapshots/KEY/work    the workdir of overlayfs

A container does not survive a power cut, so the files that it wrote need not either: snapshots are mounted
with ``volatile``, which omits fsync and the sync at unmount.

Layers have short names because the kernel limits mount options to one page, and
:mod:`noderuntime.node.host.mount` passes them relative to ``layers``: about 600 fit, overlayfs allows 500.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path

from noderuntime.core import log
from noderuntime.core.blocking import on_files
from noderuntime.core.errors import HostError, InvalidArgument, NotFound
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import Host, Mount, UserNamespace
from noderuntime.node.host.kernel import running_version
from noderuntime.node.snapshots.base import Found, Usage
from noderuntime.node.snapshots.implied import inherit_attributes
from noderuntime.node.snapshots.usage import measure

_log = log.get(__name__)

_UNSAFE = frozenset(",:\\")
_INDEX = Path("/sys/module/overlay/parameters/index")
_VOLATILE_SINCE = (5, 10)
_VIEW = ("ro", "nosuid", "nodev")
_STAGED = "new-"


class Overlay:
    """:class:`noderuntime.node.snapshots.base.Snapshotter` on overlayfs."""

    def __init__(self, host: Host, root: Path) -> None:
        """Use a directory and create its subdirectories. Blocks. InvalidArgument for an unsupported path."""
        if _UNSAFE & set(str(root)):
            raise InvalidArgument(f"image store path {root} must not contain a comma, colon or backslash")
        self._host = host
        self._root = root
        self._layers = root / "layers"
        self._snapshots = root / "snapshots"
        self._empty = root / "empty"
        for directory in (root, self._layers, self._snapshots, self._empty):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._empty.chmod(0o755)
        # With an index, overlayfs can refuse an upperdir that was mounted before a crash.
        self._options = ("index=off",) if _INDEX.exists() else ()
        self._volatile = ("volatile",) if running_version() >= _VOLATILE_SINCE else ()

    async def stage(self) -> Path:
        """Create and return an empty directory for a layer. It is removed if the caller is cancelled."""
        staged = self._layers / f"{_STAGED}{secrets.token_hex(8)}"
        try:
            await on_files(f"create {staged}", staged.mkdir)
        except BaseException:
            await self.discard(staged)
            raise
        return staged

    async def discard(self, staged: Path) -> None:
        """Remove a staged layer."""
        await self._host.remove_tree(staged)

    async def commit(
        self, staged: Path, number: int, parents: Sequence[int], implied: Collection[str]
    ) -> None:
        """Set the attributes of implied directories and rename the staged layer to its number."""
        below = [self._layer(parent) for parent in parents]

        def finish() -> None:
            inherit_attributes(staged, implied, below)
            staged.rename(self._layer(number))

        await on_files(f"commit layer {number}", finish)

    async def remove_layer(self, number: int) -> None:
        """Rename the layer, which frees its number at once, then remove its files."""
        removed = self._layers / f"{_STAGED}{secrets.token_hex(8)}"
        try:
            await on_files(f"remove layer {number}", lambda: self._layer(number).rename(removed))
        except HostError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            await self._host.remove_tree(removed)

    async def layer_usage(self, number: int) -> Usage:
        """Return the disk usage of a layer. NotFound if it does not exist."""
        return await self._measure(self._layer(number), f"layer {number}")

    async def prepare(
        self, key: str, layers: Sequence[int], target: Path, user: UserNamespace | None = None
    ) -> None:
        """Create a snapshot and mount it."""
        snapshot = self._snapshots / key
        await on_files(f"create snapshot {key}", lambda: self._create(snapshot, layers))
        if layers:
            writable = (f"upperdir={snapshot / 'fs'}", f"workdir={snapshot / 'work'}", *self._volatile)
            await self._host.mount(self._overlay(target, (self._lower(layers), *writable), user))
        else:
            await self._host.mount(Mount(str(snapshot / "fs"), target, "", ("bind",), user))

    async def release(self, key: str, target: Path) -> None:
        """Unmount a snapshot and remove its writable directory."""
        await self._host.unmount(target)
        await self._host.remove_tree(self._snapshots / key)

    async def usage(self, key: str) -> Usage:
        """Return the disk usage of a snapshot's writable directory. NotFound if it does not exist."""
        return await self._measure(self._snapshots / key / "fs", f"snapshot {key}")

    async def view(self, layers: Sequence[int], target: Path, path: str = "") -> Path:
        """Mount a stack read-only, on an empty directory, so that overlayfs hides whiteouts of one layer."""
        if layers:
            lower = f"{self._lower(layers)}:{self._empty}"
            await self._host.mount(self._overlay(target, (lower, *_VIEW)))
        else:
            await self._host.mount(Mount(str(self._empty), target, "", ("bind", *_VIEW)))
        return await on_files(f"find {path!r} in an image", lambda: _resolve(target, path))

    async def unmount(self, target: Path) -> None:
        """Unmount a view."""
        await self._host.unmount(target)

    def find(self) -> Found:
        """Return the layers and snapshots on disk. Blocks."""
        numbers = (int(name) for name in os.listdir(self._layers) if _is_number(name))
        return Found(frozenset(numbers), frozenset(os.listdir(self._snapshots)))

    async def sweep(self, layers: Collection[int], snapshots: Collection[str]) -> None:
        """Remove all other layers and snapshots. A failure is logged, and retried at the next start."""
        kept = {self._layer(number) for number in layers} | {self._snapshots / key for key in snapshots}

        def unknown() -> list[Path]:
            return [
                path
                for directory in (self._layers, self._snapshots)
                for path in directory.iterdir()
                if path not in kept
            ]

        for leftover in await on_files("list leftovers", unknown):
            try:
                await self._host.remove_tree(leftover)
            except HostError as error:
                _log.error("removing a leftover failed", path=leftover, error=error)

    async def sync(self) -> None:
        """Sync the filesystem of the layers to disk."""
        await on_files("sync layers", lambda: syscalls.sync_filesystem(self._layers))

    def _layer(self, number: int) -> Path:
        return self._layers / str(number)

    def _lower(self, layers: Sequence[int]) -> str:
        return "lowerdir=" + ":".join(str(self._layer(number)) for number in layers)

    def _overlay(self, target: Path, options: tuple[str, ...], user: UserNamespace | None = None) -> Mount:
        return Mount("overlay", target, "overlay", (*self._options, *options), user)

    def _create(self, snapshot: Path, layers: Sequence[int]) -> None:
        """Create a snapshot's directories. The root gets the owner of the image's root."""
        snapshot.mkdir(mode=0o700)
        (snapshot / "work").mkdir(mode=0o700)
        root = snapshot / "fs"
        root.mkdir()
        if layers:
            status = self._layer(layers[0]).stat()
            os.chown(root, status.st_uid, status.st_gid)
        root.chmod(0o755)

    async def _measure(self, tree: Path, name: str) -> Usage:
        try:
            return await on_files(f"measure {name}", lambda: measure(tree), abandon=True)
        except HostError as error:
            if error.errno == errno.ENOENT:
                raise NotFound(f"{name} does not exist") from error
            raise


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _resolve(root: Path, path: str) -> Path:
    """Resolve a path as a process with that root would. Safe, because a view is read-only."""
    if not path:
        return root
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = syscalls.find_in_root(top, path)
    except HostError as error:
        raise NotFound(f"path {path[:200]!r} does not exist in the image") from error
    finally:
        os.close(top)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
