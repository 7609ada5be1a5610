"""Finds images in the catalog by the names and IDs that users and kubelets pass."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from noderuntime.core.errors import InvalidArgument
from noderuntime.images.base import Image
from noderuntime.images.reference import candidates, image_id, stored_name
from noderuntime.images.store.image_records import Name, StoredImage
from noderuntime.images.store.inventory import Inventory

_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


class Lookup:
    """The images of a store by ID, ID prefix and name, in memory."""

    def __init__(self, inventory: Inventory, search: Sequence[str], pinned: Collection[str]) -> None:
        """See :class:`noderuntime.images.backends.native.NativeBackend` for ``search`` and ``pinned``."""
        self._inventory = inventory
        self._search = search
        self._pinned = frozenset(map(stored_name, pinned))

    def all(self) -> list[Image]:
        """Return all images."""
        names = self._inventory.names()
        return [self._shown(image, names.get(image.id, [])) for image in self._inventory.images()]

    def one(self, text: str) -> Image | None:
        """Return the image of :meth:`stored` as the backend's callers see it."""
        found = self.stored(text)
        return self._shown(found, self._inventory.names().get(found.id, [])) if found else None

    def stored(self, text: str) -> StoredImage | None:
        """Return the image with an ID, tag, digest, or unique prefix of an ID, or None.

        InvalidArgument for a prefix of several IDs, and for text that can be none of these.
        """
        if identifier := image_id(text):
            return self._inventory.image(identifier)
        prefix = _ID_PREFIX.fullmatch(text)
        try:
            references = candidates(text, self._search)
        except InvalidArgument:
            if prefix is None:
                raise
            references = ()
        named = filter(None, (self._inventory.named(reference.stored) for reference in references))
        return next(named, None) or (self._inventory.with_id_prefix(prefix[1]) if prefix else None)

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
