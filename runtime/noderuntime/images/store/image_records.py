"""The records of the catalog.

    Name ──► StoredImage ──► Layer ──► Layer (its parent) ──► …
    Snapshot ───────────────► Layer

A layer is identified by its chain ID (OCI image spec, config.md), which covers the layer and all layers
below it. The same archive on other parents is another layer, because directories without an entry in the
archive inherit their attributes from the parents.
"""

from __future__ import annotations

from dataclasses import dataclass

from noderuntime.images.base import ImageConfig


@dataclass(frozen=True, slots=True)
class Layer:
    """An unpacked layer."""

    chain_id: str
    number: int
    """Its name on disk."""
    parent: str
    """Chain ID of the layer below; empty at the bottom."""
    opaque: bool
    """Whether it hides all layers below it."""
    size: int
    """Bytes of its compressed archive."""
    bytes: int
    """Disk usage; ``size`` until it is measured."""
    inodes: int
    unfinished_at: int
    """Creation in seconds since the epoch; 0 as soon as an image uses it."""
    boot: str
    """The boot in which it was written; empty as soon as it is synced to disk."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image whose layers are all unpacked."""

    id: str
    """Digest of its config."""
    chain_id: str
    """Of its top layer; empty without layers."""
    size: int
    """Bytes of its layers' archives and its documents."""
    config: ImageConfig


@dataclass(frozen=True, slots=True)
class Name:
    """A tag or digest of an image."""

    name: str
    image_id: str
    target: str
    """Digest of the index or manifest that the name was resolved to."""
    manifest: str
    """Digest of the manifest for this machine's platform."""

    @property
    def is_digest(self) -> bool:
        """Whether the name contains a digest."""
        return "@" in self.name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A mount of a container: its root filesystem or an image volume."""

    key: str
    """The container's ID."""
    target: str
    """The mount point."""
    chain_id: str
    writable: bool
