"""What is in the image store and who needs it: pure, in memory, changed by the catalog only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from noderuntime.images.store.image_records import Layer, Name, Snapshot, StoredImage


class Inventory:
    """Names, images, layers and snapshots."""

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
        """List all images."""
        return list(self._images.values())

    def beginning(self, digits: str) -> StoredImage | None:
        """Return the only image whose ID's hexadecimal digits begin so."""
        found = [image for key, image in self._images.items() if key.startswith(f"sha256:{digits}")]
        return found[0] if len(found) == 1 and digits else None

    def named(self, name: str) -> StoredImage | None:
        """Return the image that a full name stands for."""
        known = self._names.get(name)
        return self._images.get(known.image_id) if known else None

    def names(self) -> dict[str, list[Name]]:
        """List all names by the image that they stand for, in their own order."""
        found: dict[str, list[Name]] = {}
        for _, name in sorted(self._names.items()):
            found.setdefault(name.image_id, []).append(name)
        return found

    def of_target(self, digest: str) -> Name | None:
        """Return a name that stands for this index or manifest."""
        return next((name for name in self._names.values() if name.target == digest), None)

    def layer(self, chain_id: str) -> Layer | None:
        """Return an unpacked layer."""
        return self._layers.get(chain_id)

    def layers(self) -> list[Layer]:
        """List all layers."""
        return list(self._layers.values())

    def chain(self, chain_id: str) -> list[Layer]:
        """List a layer and all below it, top first; what is not there ends the list."""
        found = []
        layer = self._layers.get(chain_id)
        while layer is not None:
            found.append(layer)
            layer = self._layers.get(layer.parent)
        return found

    def stack(self, chain_id: str) -> list[int]:
        """List the numbers of the layers that a mount consists of, top first."""
        numbers = []
        for layer in self.chain(chain_id):
            numbers.append(layer.number)
            if layer.opaque:
                break
        return numbers

    def snapshots(self, key: str = "") -> list[Snapshot]:
        """List what a container, or all of them, have mounted."""
        return [snapshot for snapshot in self._snapshots.values() if key in {"", snapshot.key}]

    @contextmanager
    def hold(self, *things: str) -> Iterator[None]:
        """Keep layers (by chain ID) and documents (by digest), there or still to come, from the collector."""
        self._held.update(things)
        try:
            yield
        finally:
            self._held.subtract(things)
            self._held = +self._held

    def needed_documents(self) -> set[str]:
        """List the digests of all documents that belong to an image or are held."""
        needed = set(self._held) | set(self._images)
        for name in self._names.values():
            needed |= {name.target, name.manifest}
        return needed

    def unused(self, over: Callable[[Layer], bool]) -> list[Layer]:
        """List the layers that nothing stands on.

        Those of an unfinished pull are used until ``over`` says that nobody will go on with it.
        """
        needed: set[str] = set()
        for root in self._roots(over):
            chain_id = root
            while chain_id not in needed and (layer := self._layers.get(chain_id)):
                needed.add(chain_id)
                chain_id = layer.parent
        return [layer for layer in self._layers.values() if layer.chain_id not in needed]

    def _roots(self, over: Callable[[Layer], bool]) -> set[str]:
        return (
            set(self._held)
            | {image.chain_id for image in self._images.values()}
            | {snapshot.chain_id for snapshot in self._snapshots.values()}
            | {one.chain_id for one in self._layers.values() if one.unfinished_at and not over(one)}
        )
