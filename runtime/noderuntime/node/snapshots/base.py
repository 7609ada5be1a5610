"""What a snapshotter owes the image store.

A *layer* is a directory that holds what one layer of an image changes. It is known by a
number, is never changed once it has one, and may be part of any number of images.

    stage() ──► [unpack into it] ──► commit(staged, number, …) ──► … ──► remove_layer(number)
       └──────────────────────────► discard(staged)

A *snapshot* is a container's root filesystem: a stack of layers and on top of it a directory
of the container's own, which takes everything that the container writes.

    prepare(key, layers, target) ──► [container runs] ──► release(key, target)

A *view* is a stack of layers that nobody can write to, for image volumes:

    view(layers, target, path) ──► [container runs] ──► unmount(target)

* A layer is whole or not there: ``commit`` is one rename. What died before it is found by :meth:`sweep`.
* Stacks are given top first. Who uses a snapshotter sees to it that layers live as long as
  any snapshot, view or staged layer stands on them, and that no number is used twice.
* ``prepare`` and ``view`` may leave parts behind when they fail; ``release``, ``unmount`` and
  ``discard`` clear those away. All three are idempotent and succeed for what never was.
* A key is a container's ID, and a name without a slash.
* Targets exist and are empty.
* A full disk is ResourceExhausted; HostError is whatever else the kernel refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from noderuntime.node.host.base import UserNamespace


class Usage(NamedTuple):
    """What a directory tree takes on disk."""

    bytes: int
    inodes: int


class Found(NamedTuple):
    """What is on disk."""

    layers: frozenset[int]
    snapshots: frozenset[str]


class Snapshotter(Protocol):
    """Layers, snapshots and views in one directory."""

    async def stage(self) -> Path:
        """Make an empty directory for a layer that is about to be unpacked."""

    async def discard(self, staged: Path) -> None:
        """Remove a staged layer that will not be committed."""

    async def commit(
        self, staged: Path, number: int, parents: Sequence[int], implied: Collection[str]
    ) -> None:
        """Make a staged layer, which stands on ``parents``, one with a number.

        ``implied`` are directories (paths below the layer's root) that hold entries but were not
        described by the layer: they get the looks that they have in the parents.
        """

    async def remove_layer(self, number: int) -> None:
        """Remove a layer that nothing stands on; missing is no error."""

    async def layer_usage(self, number: int) -> Usage:
        """Measure a layer."""

    async def prepare(
        self, key: str, layers: Sequence[int], target: Path, user: UserNamespace | None = None
    ) -> None:
        """Make a snapshot and mount it as the user namespace sees it; without layers it is empty."""

    async def release(self, key: str, target: Path) -> None:
        """Unmount a snapshot and remove what was written to it."""

    async def usage(self, key: str) -> Usage:
        """Measure what was written to a snapshot; NotFound."""

    async def view(self, layers: Sequence[int], target: Path, path: str = "") -> Path:
        """Mount a stack read-only; return where in it ``path`` leads, links in the stack followed inside it.

        NotFound when it leads nowhere.
        """

    async def unmount(self, target: Path) -> None:
        """Take a view away."""

    def find(self) -> Found:
        """List what is on disk. Blocks."""

    async def sweep(self, layers: Collection[int], snapshots: Collection[str]) -> None:
        """Remove all but these, and everything staged; at a start, when nothing is in use."""

    async def sync(self) -> None:
        """Return when all that was committed would survive a power cut."""
