"""The contract of a snapshotter, which the image store uses.

A *layer* is a directory with the changes of one layer of an image. It is identified by a number,
is immutable after its commit, and can be part of any number of images.

    stage() ──► [unpack into it] ──► commit(staged, number, …) ──► … ──► remove_layer(number)
       └──────────────────────────► discard(staged)

A *snapshot* is a container's root filesystem: a stack of layers with a writable directory of the
container on top.

    prepare(key, layers, target) ──► [container runs] ──► release(key, target)

A *view* is a read-only stack of layers, for image volumes:

    view(layers, target, path) ──► [container runs] ──► unmount(target)

* A layer is complete or does not exist: ``commit`` is one rename. :meth:`sweep` removes what was
  interrupted before it.
* Stacks are listed top first. The caller must keep a layer as long as a snapshot, view or staged layer
  depends on it, and must not reuse a number.
* ``prepare`` and ``view`` can leave parts behind when they fail; ``release``, ``unmount`` and
  ``discard`` remove them. All three are idempotent and succeed for objects that do not exist.
* A key is a container's ID. It contains no slash.
* Target directories must exist and be empty.
* Errors: ResourceExhausted for a full disk, HostError for other errors of the kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from noderuntime.node.host.base import UserNamespace


class Usage(NamedTuple):
    """The disk usage of a directory tree."""

    bytes: int
    inodes: int


class Found(NamedTuple):
    """The numbers of layers and the keys of snapshots on disk."""

    layers: frozenset[int]
    snapshots: frozenset[str]


class Snapshotter(Protocol):
    """A store of layers, snapshots and views in one directory. See the module for its contract."""

    async def stage(self) -> Path:
        """Create and return an empty directory to unpack a layer into."""

    async def discard(self, staged: Path) -> None:
        """Remove a staged layer instead of committing it."""

    async def commit(
        self, staged: Path, number: int, parents: Sequence[int], implied: Collection[str]
    ) -> None:
        """Commit a staged layer, which is based on ``parents``, under a number.

        ``implied`` are directories (paths below the layer's root) without an entry of their own in
        the layer. They get the attributes that they have in the parents.
        """

    async def remove_layer(self, number: int) -> None:
        """Remove a layer that is not in use, if it exists."""

    async def layer_usage(self, number: int) -> Usage:
        """Return the disk usage of a layer. NotFound if it does not exist."""

    async def prepare(
        self, key: str, layers: Sequence[int], target: Path, user: UserNamespace | None = None
    ) -> None:
        """Create a snapshot and mount it, ID-mapped for the user namespace. Without layers it is empty."""

    async def release(self, key: str, target: Path) -> None:
        """Unmount a snapshot and remove its writable directory."""

    async def usage(self, key: str) -> Usage:
        """Return the disk usage of a snapshot's writable directory. NotFound if it does not exist."""

    async def view(self, layers: Sequence[int], target: Path, path: str = "") -> Path:
        """Mount a stack read-only and return ``path`` resolved in it, with symlinks confined to the stack.

        NotFound if the path does not exist in the stack.
        """

    async def unmount(self, target: Path) -> None:
        """Unmount a view."""

    def find(self) -> Found:
        """Return the layers and snapshots on disk. Blocks."""

    async def sweep(self, layers: Collection[int], snapshots: Collection[str]) -> None:
        """Remove all other layers and snapshots, and all staged layers. Call it at start, before any use."""

    async def sync(self) -> None:
        """Sync all committed layers to disk, so that they survive a power cut."""
