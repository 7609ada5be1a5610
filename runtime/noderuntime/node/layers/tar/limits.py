"""What a layer may ask for. Beyond it, unpacking ends with ResourceExhausted or InvalidArgument.

Tuples, not dataclasses: the worker imports this, and importing ``dataclasses`` costs it 10 ms.
"""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds on one layer; the defaults let every honest image through."""

    size: int = 64 << 30
    """Bytes of the uncompressed archive."""
    ratio: int = 1000
    """Uncompressed bytes for each compressed one, counted once there are ``ratio_from`` of them."""
    ratio_from: int = 1 << 30
    entries: int = 2_000_000
    """Headers in the archive, those of extensions included."""
    devices: int = 1024
    path: int = 4095
    """Bytes of a path, as the kernel counts."""
    depth: int = 256
    """Directories above an entry; each costs an open descriptor."""
    steps: int = 20_000_000
    """Directories and links on the ways to all entries together: some minutes' work."""
    kept: int = 128 << 20
    """Bytes that the worker keeps about directories until their contents are written."""


DEFAULT_LIMITS = Limits()


class Unpacked(NamedTuple):
    """What came out of a layer."""

    diff_id: str
    """``sha256:`` digest of the uncompressed archive, all of it."""
    digest: str
    """``sha256:`` digest of the stream as it came, all of it."""
    size: int
    """Bytes of the uncompressed archive."""
    entries: int
    implied: tuple[str, ...] = ()
    """Directories that hold entries but have none of their own: 0755, root's, time 0.

    Over a lower layer that has them they should look as they do there.
    """
    opaque: bool = False
    """The layer hides everything that is in the layers below it: leave them out."""
