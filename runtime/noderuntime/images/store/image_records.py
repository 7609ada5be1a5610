"""What the catalog keeps of images.

    Name ──► StoredImage ──► Layer ──► Layer (the one below) ──► …
    Snapshot ───────────────► Layer

Layers are known by their chain ID (OCI image spec, config.md), which stands for a layer and all
that are below it: the same archive over other layers is another layer, because directories that
it does not describe look as they do below.
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
    """It hides all layers below it."""
    size: int
    """Bytes of its archive."""
    bytes: int
    """Space on disk; the archive's size until it was measured."""
    inodes: int
    unfinished_at: int
    """Seconds since the epoch when it was made, until an image has it; then 0."""
    boot: str
    """The boot that it was written in, until it would survive a power cut; then empty."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image, all layers of which are unpacked."""

    id: str
    """Digest of its config."""
    chain_id: str
    """Of its top layer; empty without layers."""
    size: int
    """Bytes of its layers' archives and its documents."""
    config: ImageConfig


@dataclass(frozen=True, slots=True)
class Name:
    """A tag or digest under which an image is known."""

    name: str
    image_id: str
    target: str
    """Digest of the index or manifest that it stood for."""
    manifest: str
    """Digest of the manifest that was chosen for this machine."""

    @property
    def is_digest(self) -> bool:
        """It says itself which image it is."""
        return "@" in self.name


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a container has mounted: its root filesystem, or an image volume."""

    key: str
    """The container's ID."""
    target: str
    """Where it is mounted."""
    chain_id: str
    writable: bool
