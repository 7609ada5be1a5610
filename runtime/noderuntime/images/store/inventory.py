"""The contents of the image store and their users, in memory. Only the catalog changes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from noderuntime.core.errors import InvalidArgument
from noderuntime.images.store.image_records import Layer, Name, Snapshot, StoredImage


class Inventory:
    """The names, images, layers and snapshots of a store."""

    def __init__(self) -> None:
        self._layers: dict[str, Layer] = {}
        self._images: dict[str, StoredImage] = {}
        self._names: dict[str, Name] = {}
        self._snapshots: dict[tuple[str, str], Snapshot] = {}
        self._held: Counter[str] = Counter()

    def image(self, image_id: str) -> StoredImage | None:
        """Return an image by its ID."""
        return self._images.get(image_id)

    def images(self) -> list[StoredImage]:
        """Return all images."""
        return list(self._images.values())

    def with_id_prefix(self, digits: str) -> StoredImage | None:
        """Return the only image whose ID begins with these digits. InvalidArgument if several do."""
        found = [image for key, image in self._images.items() if key.startswith(f"sha256:{digits}")]
        if len(found) > 1:
            raise InvalidArgument(f"image ID prefix {digits} is ambiguous: use a longer one")
        return found[0] if found else None

    def named(self, name: str) -> StoredImage | None:
        """Return the image with a full name."""
        known = self._names.get(name)
        return self._images.get(known.image_id) if known else None

    def names(self) -> dict[str, list[Name]]:
        """Return the sorted names by image ID."""
        found: dict[str, list[Name]] = {}
        for _, name in sorted(self._names.items()):
            found.setdefault(name.image_id, []).append(name)
        return found

    def of_target(self, digest: str) -> Name | None:
        """Return a name that was resolved to this index or manifest."""
        return next((name for name in self._names.values() if name.target == digest), None)

    def layer(self, chain_id: str) -> Layer | None:
        """Return the unpacked layer with a chain ID."""
        return self._layers.get(chain_id)

    def layers(self) -> list[Layer]:
        """Return all layers."""
        return list(self._layers.values())

    def chain(self, chain_id: str) -> list[Layer]:
        """Return a layer and all layers below it, top first, up to the first missing one."""
        found = []
        layer = self._layers.get(chain_id)
        while layer is not None:
            found.append(layer)
            layer = self._layers.get(layer.parent)
        return found

    def stack(self, chain_id: str) -> list[int]:
        """Return the numbers of the layers of a mount, top first."""
        numbers = []
        for layer in self.chain(chain_id):
            numbers.append(layer.number)
            if layer.opaque:
                break
        return numbers

    def snapshots(self, key: str = "") -> list[Snapshot]:
        """Return the mounts of a container, or of all containers."""
        return [snapshot for snapshot in self._snapshots.values() if key in {"", snapshot.key}]

    @contextmanager
    def hold(self, *things: str) -> Iterator[None]:
        """Protect layers (by chain ID) and documents (by digest) from garbage collection."""
        self._held.update(things)
        try:
            yield
        finally:
            self._held.subtract(things)
            self._held = +self._held

    def needed_documents(self) -> set[str]:
        """Return the digests of all documents that an image or :meth:`hold` needs."""
        needed = set(self._held) | set(self._images)
        for name in self._names.values():
            needed |= {name.target, name.manifest}
        return needed

    def unused(self, is_abandoned: Callable[[Layer], bool]) -> list[Layer]:
        """Return the layers that nothing depends on.

        Layers of an interrupted pull are in use until ``is_abandoned`` returns True for them.
        """
        needed: set[str] = set()
        for root in self._roots(is_abandoned):
            chain_id = root
            while chain_id not in needed and (layer := self._layers.get(chain_id)):
                needed.add(chain_id)
                chain_id = layer.parent
        return [layer for layer in self._layers.values() if layer.chain_id not in needed]

    def _roots(self, is_abandoned: Callable[[Layer], bool]) -> set[str]:
        return (
            set(self._held)
            | {image.chain_id for image in self._images.values()}
            | {snapshot.chain_id for snapshot in self._snapshots.values()}
            | {one.chain_id for one in self._layers.values() if one.unfinished_at and not is_abandoned(one)}
        )
