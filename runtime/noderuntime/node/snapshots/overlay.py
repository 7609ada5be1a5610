"""Snapshots on overlayfs.

Below one directory, which only root may enter:

    layers/NUMBER         layers; new-… are staged or about to go
    snapshots/KEY/fs      what a container wrote
    snapshots/KEY/work    overlayfs' own

What a container wrote does not outlive a power cut, because the container does not: the kernel is told
not to bother with its fsync, and not to write out the disk when it is unmounted.

Layers have short names because the kernel takes no more than a page of mount options, and
:mod:`noderuntime.node.host.mount` names them relative to ``layers``: some 600 fit, overlayfs stops at 500.
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
from noderuntime.node.snapshots.implied import adopt_looks
from noderuntime.node.snapshots.usage import measure

_log = log.get(__name__)

_UNSAFE = frozenset(",:\\")
_INDEX = Path("/sys/module/overlay/parameters/index")
_KNOWS_VOLATILE = (5, 10)
_VIEW = ("ro", "nosuid", "nodev")
_STAGED = "new-"


class Overlay:
    """:class:`noderuntime.node.snapshots.base.Snapshotter` on overlayfs."""

    def __init__(self, host: Host, root: Path) -> None:
        """Use a directory, whose subdirectories are made if missing. Blocks; used at start only."""
        if _UNSAFE & set(str(root)):
            raise InvalidArgument(f"images cannot be kept in {root}: no comma, colon or backslash, please")
        self._host = host
        self._root = root
        self._layers = root / "layers"
        self._snapshots = root / "snapshots"
        self._empty = root / "empty"
        for directory in (root, self._layers, self._snapshots, self._empty):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._empty.chmod(0o755)
        # With an index, a directory that was mounted before a crash may be refused.
        self._options = ("index=off",) if _INDEX.exists() else ()
        self._never_synced = ("volatile",) if running_version() >= _KNOWS_VOLATILE else ()

    async def stage(self) -> Path:
        """Make an empty directory for a layer; none is left when the caller is cancelled meanwhile."""
        staged = self._layers / f"{_STAGED}{secrets.token_hex(8)}"
        try:
            await on_files(f"make {staged}", staged.mkdir)
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
        """Give a staged layer its last looks and its number."""
        below = [self._layer(parent) for parent in parents]

        def finish() -> None:
            adopt_looks(staged, implied, below)
            staged.rename(self._layer(number))

        await on_files(f"keep layer {number}", finish)

    async def remove_layer(self, number: int) -> None:
        """Take the layer's number away at once, then remove it."""
        going = self._layers / f"{_STAGED}{secrets.token_hex(8)}"
        try:
            await on_files(f"remove layer {number}", lambda: self._layer(number).rename(going))
        except HostError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            await self._host.remove_tree(going)

    async def layer_usage(self, number: int) -> Usage:
        """Measure a layer."""
        return await self._measure(self._layer(number), f"layer {number}")

    async def prepare(
        self, key: str, layers: Sequence[int], target: Path, user: UserNamespace | None = None
    ) -> None:
        """Make a snapshot and mount it."""
        place = self._snapshots / key
        await on_files(f"make snapshot {key}", lambda: self._make(place, layers))
        if layers:
            writable = (f"upperdir={place / 'fs'}", f"workdir={place / 'work'}", *self._never_synced)
            await self._host.mount(self._overlay(target, (self._lower(layers), *writable), user))
        else:
            await self._host.mount(Mount(str(place / "fs"), target, "", ("bind",), user))

    async def release(self, key: str, target: Path) -> None:
        """Unmount a snapshot and remove what was written to it."""
        await self._host.unmount(target)
        await self._host.remove_tree(self._snapshots / key)

    async def usage(self, key: str) -> Usage:
        """Measure what was written to a snapshot."""
        return await self._measure(self._snapshots / key / "fs", f"snapshot {key}")

    async def view(self, layers: Sequence[int], target: Path, path: str = "") -> Path:
        """Mount a stack read-only, an empty directory at its bottom: a single layer has whiteouts, too."""
        if layers:
            lower = f"{self._lower(layers)}:{self._empty}"
            await self._host.mount(self._overlay(target, (lower, *_VIEW)))
        else:
            await self._host.mount(Mount(str(self._empty), target, "", ("bind", *_VIEW)))
        return await on_files(f"find {path!r} in an image", lambda: _resolve(target, path))

    async def unmount(self, target: Path) -> None:
        """Take a view away."""
        await self._host.unmount(target)

    def find(self) -> Found:
        """List what is on disk."""
        numbers = (int(name) for name in os.listdir(self._layers) if _is_number(name))
        return Found(frozenset(numbers), frozenset(os.listdir(self._snapshots)))

    async def sweep(self, layers: Collection[int], snapshots: Collection[str]) -> None:
        """Remove all but these, and everything staged; what resists is logged and met at the next start."""
        kept = {self._layer(number) for number in layers} | {self._snapshots / key for key in snapshots}

        def unknown() -> list[Path]:
            return [
                path
                for directory in (self._layers, self._snapshots)
                for path in directory.iterdir()
                if path not in kept
            ]

        for leftover in await on_files("look for leftovers", unknown):
            try:
                await self._host.remove_tree(leftover)
            except HostError as error:
                _log.error("a leftover cannot be removed", path=leftover, error=error)

    async def sync(self) -> None:
        """Have the filesystem written out."""
        await on_files("sync layers", lambda: syscalls.sync_filesystem(self._layers))

    def _layer(self, number: int) -> Path:
        return self._layers / str(number)

    def _lower(self, layers: Sequence[int]) -> str:
        return "lowerdir=" + ":".join(str(self._layer(number)) for number in layers)

    def _overlay(self, target: Path, options: tuple[str, ...], user: UserNamespace | None = None) -> Mount:
        return Mount("overlay", target, "overlay", (*self._options, *options), user)

    def _make(self, place: Path, layers: Sequence[int]) -> None:
        """Make a snapshot's directories; its root belongs to whom the image's root belongs."""
        place.mkdir(mode=0o700)
        (place / "work").mkdir(mode=0o700)
        root = place / "fs"
        root.mkdir()
        if layers:
            looks = self._layer(layers[0]).stat()
            os.chown(root, looks.st_uid, looks.st_gid)
        root.chmod(0o755)

    async def _measure(self, tree: Path, what: str) -> Usage:
        try:
            return await on_files(f"measure {what}", lambda: measure(tree), abandon=True)
        except HostError as error:
            if error.errno == errno.ENOENT:
                raise NotFound(f"no {what}") from error
            raise


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _resolve(root: Path, path: str) -> Path:
    """Follow a path as a process with that root would; nobody can change a view meanwhile."""
    if not path:
        return root
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = syscalls.find_in_root(top, path)
    except HostError as error:
        raise NotFound(f"the image has no {path[:200]!r}") from error
    finally:
        os.close(top)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
