"""The contract of an image backend, which the lifecycle uses.

A container gets a *snapshot*: a writable directory tree on top of the image's layers, mounted at a path
that the caller selects. Lifecycle:

    image(ref) ──► prepare(key, image, target) ──► [container runs] ──► release(key, target)

* ``prepare`` is all or nothing: after an error neither mount nor snapshot is left.
* The layers of a snapshot exist as long as the snapshot, even if the image is removed.
* ``release`` is idempotent and succeeds for keys that do not exist.
* Keys are container IDs. A backend can list its keys, so that recovery finds orphans.

One conformance suite (tests/contract) runs against every backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from noderuntime.node.host.base import UserNamespace


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The defaults for containers in an OCI image config."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """An image on the node."""

    id: str
    """``sha256:`` and the digest of its config (CRI Image.id)."""
    chain_id: str
    """Chain ID of its top layer (OCI image spec, ChainID), which names its snapshot."""
    config: ImageConfig
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    size: int = 0
    """Bytes; 0 if the backend does not know it."""
    pinned: bool = False
    """Whether the kubelet must not remove it to free space."""


@dataclass(frozen=True, slots=True)
class SnapshotUsage:
    """The disk usage of a container's writable layer."""

    bytes: int
    inodes: int


class ImageBackend(Protocol):
    """A source of root filesystems. See the module for its contract."""

    async def image(self, ref: str) -> Image:
        """Return the image with an ID, tag or digest. NotFound if the node does not have it."""

    async def prepare(
        self,
        key: str,
        image: Image,
        target: Path,
        labels: Mapping[str, str],
        user: UserNamespace | None = None,
    ) -> None:
        """Create a writable snapshot of the image and mount it at the target, an existing empty directory.

        In a (pinned) user namespace the mount is ID-mapped, so that owners inside are those of the image.
        """

    async def volume(self, key: str, image: Image, target: Path, sub_path: str = "") -> Path:
        """Mount an image read-only at the target and return ``sub_path`` in it.

        It is mounted until the key is released. NotFound if the path does not exist, Unimplemented if the
        backend does not support image volumes.
        """

    async def release(self, key: str, target: Path) -> None:
        """Unmount the target and the key's volumes, and remove the snapshot."""

    async def keys(self) -> set[str]:
        """Return the keys of the snapshots that this daemon created."""

    async def usage(self, key: str) -> SnapshotUsage:
        """Return the disk usage of a snapshot's writable layer."""

    async def filesystem(self) -> str:
        """Return the directory that contains the writable layers (CRI ImageFsInfo, ``fs_id``)."""

    async def close(self) -> None:
        """Close connections. Snapshots are kept."""
