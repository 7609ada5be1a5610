"""What an image backend owes the layers above.

A container gets a *snapshot*: a writable directory tree made of the image's
layers, mounted at a path that the caller chose. Lifecycle:

    image(ref) ──► prepare(key, image, target) ──► [container runs] ──► release(key, target)

* ``prepare`` is all or nothing: after an error neither mount nor snapshot is left.
* While a snapshot lives, its parents live, whatever the image's owner removes.
* ``release`` is idempotent and succeeds for keys that never were.
* Keys are container IDs. A backend can list its keys, so that recovery finds orphans.

One conformance suite (tests/contract) holds every backend to this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from noderuntime.node.host.base import UserNamespace


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The part of an OCI image config that a container takes its defaults from."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is on the node."""

    id: str
    """``sha256:`` and the digest of its config (CRI Image.id)."""
    chain_id: str
    """Snapshot name of its top layer (OCI image spec, ChainID)."""
    config: ImageConfig
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    size: int = 0
    """Bytes, where the backend knows."""
    pinned: bool = False
    """Nobody should remove it to make room."""


@dataclass(frozen=True, slots=True)
class SnapshotUsage:
    """What a container's writable layer takes on disk."""

    bytes: int
    inodes: int


class ImageBackend(Protocol):
    """Where root filesystems come from."""

    async def image(self, ref: str) -> Image:
        """Find an image by ID, tag or digest; NotFound when the node does not have it."""

    async def prepare(
        self,
        key: str,
        image: Image,
        target: Path,
        labels: Mapping[str, str],
        user: UserNamespace | None = None,
    ) -> None:
        """Make a writable snapshot of the image and mount it at the (existing, empty) target.

        With a (pinned) user namespace, its owners are those of the image as seen from in there.
        """

    async def volume(self, key: str, image: Image, target: Path, sub_path: str = "") -> Path:
        """Mount an image read-only at the target; return where the path leads in it.

        It stays until the key is released. NotFound when the path leads nowhere, Unimplemented where the
        backend has no such mounts.
        """

    async def release(self, key: str, target: Path) -> None:
        """Unmount the target and the key's volumes, and remove the snapshot."""

    async def keys(self) -> set[str]:
        """List the snapshots that this daemon made."""

    async def usage(self, key: str) -> SnapshotUsage:
        """Measure a snapshot's writable layer."""

    async def filesystem(self) -> str:
        """Name the directory that writable layers count against, as ImageFsInfo names it (CRI ``fs_id``)."""

    async def close(self) -> None:
        """Let go of connections; snapshots stay."""
