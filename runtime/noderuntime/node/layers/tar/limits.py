"""Limits on a layer. If one is exceeded, unpacking fails with ResourceExhausted or InvalidArgument.

Named tuples instead of dataclasses: importing ``dataclasses`` would delay the start of a worker by 10 ms.
"""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Limits on one layer. The defaults accept every legitimate image."""

    size: int = 256 << 30
    """Bytes of the uncompressed archive. A ratio is not limited: deflate compresses zeros 1032 times."""
    free_disk: int = 0
    """Bytes that stay available to ordinary users on the filesystem that is written to."""
    entries: int = 2_000_000
    """Headers in the archive, including extended headers."""
    devices: int = 1024
    path: int = 4095
    """Bytes of a path, as in the kernel."""
    depth: int = 256
    """Directories above an entry. Each needs an open descriptor."""
    steps: int = 20_000_000
    """Directories and symlinks resolved for all entries together, which takes a few minutes."""
    directory_bytes: int = 128 << 20
    """Memory in bytes for attributes of directories, which are set at the end."""


DEFAULT_LIMITS = Limits()


class Unpacked(NamedTuple):
    """The result of unpacking a layer."""

    diff_id: str
    """``sha256:`` digest of the whole uncompressed archive."""
    digest: str
    """``sha256:`` digest of the whole compressed stream."""
    size: int
    """Bytes of the uncompressed archive."""
    entries: int
    implied: tuple[str, ...] = ()
    """Directories that contain entries but have no entry of their own. Mode 0755, owner root, time 0.

    On top of a lower layer that has them, they should get the attributes that they have there.
    """
    opaque: bool = False
    """Whether the layer hides all layers below it, so that they must be omitted at mount."""
