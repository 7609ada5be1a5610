"""Finding images in the catalog by what people and kubelets call them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from noderuntime.core.errors import InvalidArgument
from noderuntime.images.base import Image
from noderuntime.images.reference import candidates, image_id, stored_name
from noderuntime.images.store.image_records import Name, StoredImage
from noderuntime.images.store.inventory import Inventory

_BEGINNING = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


class Lookup:
    """The images of a store under all their names; from memory."""

    def __init__(self, inventory: Inventory, search: Sequence[str], pinned: Collection[str]) -> None:
        """See :class:`noderuntime.images.backends.native.NativeBackend` for ``search`` and ``pinned``."""
        self._inventory = inventory
        self._search = search
        self._pinned = frozenset(map(stored_name, pinned))

    def all(self) -> list[Image]:
        """List all images."""
        names = self._inventory.names()
        return [self._shown(image, names.get(image.id, [])) for image in self._inventory.images()]

    def one(self, text: str) -> Image | None:
        """Find an image as :meth:`stored` does."""
        found = self.stored(text)
        return self._shown(found, self._inventory.names().get(found.id, [])) if found else None

    def stored(self, text: str) -> StoredImage | None:
        """Find an image by ID, tag, digest, or the beginning of an ID; InvalidArgument for what is none."""
        if identifier := image_id(text):
            return self._inventory.image(identifier)
        beginning = _BEGINNING.fullmatch(text)
        try:
            references = candidates(text, self._search)
        except InvalidArgument:
            if beginning is None:
                raise
            references = ()
        named = filter(None, (self._inventory.named(reference.stored) for reference in references))
        return next(named, None) or (self._inventory.beginning(beginning[1]) if beginning else None)

    def _shown(self, image: StoredImage, names: Sequence[Name]) -> Image:
        return Image(
            id=image.id,
            chain_id=image.chain_id,
            config=image.config,
            repo_tags=tuple(name.name for name in names if not name.is_digest),
            repo_digests=tuple(name.name for name in names if name.is_digest),
            size=image.size,
            pinned=any(name.name in self._pinned for name in names),
        )
