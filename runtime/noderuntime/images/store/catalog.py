"""The catalog of images, layers and snapshots, and their dependencies.

Reads use memory only, so that lists never wait for a disk. A change other than a new layer is made in memory
first, where it is visible to other calls and to garbage collection, and is written through to the database
before the call returns. A change that cannot be written is rolled back.

Rows without their files are dropped at start: a layer whose directory was removed or had not been synced
before a power cut, an image without all of its layers or without its config. Therefore files are removed
before their rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import TypeVar

from noderuntime.core import log, tasks
from noderuntime.core.database import Database, Statement
from noderuntime.core.errors import AlreadyExists, NoderuntimeError
from noderuntime.images.base import ImageConfig
from noderuntime.images.store.image_records import Layer, Name, Snapshot, StoredImage
from noderuntime.images.store.inventory import Inventory

_log = log.get(__name__)

STEPS = (
    """
    CREATE TABLE layers (
        chain_id TEXT PRIMARY KEY, number INTEGER NOT NULL, parent TEXT NOT NULL, opaque INTEGER NOT NULL,
        size INTEGER NOT NULL, bytes INTEGER NOT NULL, inodes INTEGER NOT NULL,
        unfinished_at INTEGER NOT NULL, boot TEXT NOT NULL
    ) STRICT;
    CREATE TABLE images (id TEXT PRIMARY KEY, chain_id TEXT NOT NULL, size INTEGER NOT NULL) STRICT;
    CREATE TABLE names (
        name TEXT PRIMARY KEY, image_id TEXT NOT NULL, target TEXT NOT NULL, manifest TEXT NOT NULL
    ) STRICT;
    CREATE TABLE snapshots (
        key TEXT NOT NULL, target TEXT NOT NULL, chain_id TEXT NOT NULL, writable INTEGER NOT NULL,
        PRIMARY KEY (key, target)
    ) STRICT;
    """,
)


def _columns(record: type) -> str:
    """Return the columns that have a record's fields; an image's config is a document of its own."""
    return ", ".join(field.name for field in fields(record) if field.name != "config")


def _select(table: str, record: type) -> str:
    return f"SELECT {_columns(record)} FROM {table} ORDER BY rowid"  # noqa: S608 - constants of this program


def _insert(table: str, record: type) -> str:
    columns = _columns(record)
    marks = ", ".join("?" for _ in columns.split(", "))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - constants of this program


def _put(table: str, record: type, key: str) -> str:
    """Return SQL that inserts a row, or changes the columns that we know of the row with the same key."""
    columns = _columns(record).split(", ")
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns)
    return f"{_insert(table, record)} ON CONFLICT ({key}) DO UPDATE SET {changes}"


_PUT_LAYER = _put("layers", Layer, "chain_id")
_PUT_IMAGE = _put("images", StoredImage, "id")
_PUT_NAME = _put("names", Name, "name")
_PUT_SNAPSHOT = _insert("snapshots", Snapshot)
_DROP_LAYER = "DELETE FROM layers WHERE number = ?"
_DROP_IMAGE = "DELETE FROM images WHERE id = ?"
_DROP_NAMES = "DELETE FROM names WHERE image_id = ?"
_DROP_SNAPSHOT = "DELETE FROM snapshots WHERE key = ? AND target = ?"

T = TypeVar("T")

Numbers = Callable[[], Collection[int]]
"""Returns the numbers of the layers on disk."""
ConfigOf = Callable[[str], ImageConfig | None]
"""Returns an image's config by its digest, or None if it is missing or invalid."""


class Catalog(Inventory):
    """The inventory of one store, persisted in a database."""

    def __init__(self, path: Path, numbers: Numbers, boot: str, config_of: ConfigOf) -> None:
        """Open the database. ``boot`` identifies the current boot of the machine.

        Blocks: call it at start only. FailedPrecondition if another daemon has it open, it needs a newer
        daemon, or it is damaged.
        """
        super().__init__()
        self.boot = boot
        self._lost: list[Statement] = []
        self._last_number = 0

        def load(connection: sqlite3.Connection) -> None:
            self._load_layers(connection, numbers())
            self._load_images(connection, config_of)
            for key, target, chain_id, writable in connection.execute(_select("snapshots", Snapshot)):
                self._snapshots[key, target] = Snapshot(key, target, chain_id, bool(writable))

        self._database = Database(path, "image catalog", STEPS, load)

    def next_number(self) -> int:
        """Return a number that no layer has, or had since the start."""
        self._last_number += 1
        return self._last_number

    async def add_layer(self, layer: Layer) -> None:
        """Add a layer whose files are complete but need not be synced to disk.

        It is visible after the write only: other pulls would use it, although a failed or cancelled write
        removes it.
        """
        await self._database.write((_PUT_LAYER, astuple(layer)))
        self._layers[layer.chain_id] = layer

    async def add_image(self, image: StoredImage, names: Iterable[Name]) -> None:
        """Add an image, or names to an existing one. A name is moved from the image that had it.

        A cancelled caller waits for the end of the write, which can succeed: then the image stays.
        """
        named = {name.name: name for name in names}
        adopted = [replace(one, unfinished_at=0) for one in self.chain(image.chain_id) if one.unfinished_at]
        before = self._images.get(image.id), {name: self._names.get(name) for name in named}
        self._images[image.id] = image
        self._names |= named
        self._layers |= {layer.chain_id: layer for layer in adopted}
        write = self._database.write(
            (_PUT_IMAGE, (image.id, image.chain_id, image.size)),
            *((_PUT_NAME, astuple(name)) for name in named.values()),
            *((_PUT_LAYER, astuple(layer)) for layer in adopted),
        )
        writing = tasks.start(write, name="record an image")
        try:
            await tasks.settle(writing)
        finally:
            if writing.exception() is not None:
                _put_back(self._images, {image.id: before[0]})
                _put_back(self._names, before[1])
        writing.result()

    def take_image(self, image_id: str) -> None:
        """Drop an image and its names from memory. Its layers can be collected from then on."""
        self._images.pop(image_id, None)
        self._names = {key: name for key, name in self._names.items() if name.image_id != image_id}

    async def drop_image(self, image_id: str) -> None:
        """Drop an image after :meth:`take_image` from the database, unless it was added again meanwhile."""
        if image_id not in self._images:
            await self._database.write((_DROP_IMAGE, (image_id,)), (_DROP_NAMES, (image_id,)))

    def take_unused(self, is_abandoned: Callable[[Layer], bool]) -> list[Layer]:
        """Drop the layers of :meth:`unused` from memory and return them."""
        unused = self.unused(is_abandoned)
        for layer in unused:
            del self._layers[layer.chain_id]
        return unused

    async def drop_layers(self, layers: Iterable[Layer]) -> None:
        """Drop layers after :meth:`take_unused` from the database."""
        await self._database.write(*((_DROP_LAYER, (layer.number,)) for layer in layers))

    async def add_snapshot(self, snapshot: Snapshot) -> None:
        """Record a mount before it is made. AlreadyExists for the same mount or a second root."""
        known = self.snapshots(snapshot.key)
        has_root = snapshot.writable and any(one.writable for one in known)
        place = (snapshot.key, snapshot.target)
        if has_root or place in self._snapshots:
            raise AlreadyExists(f"container {snapshot.key} already has a snapshot")
        self._snapshots[place] = snapshot
        try:
            await self._database.write((_PUT_SNAPSHOT, astuple(snapshot)))
        except BaseException:  # a cancelled write still completes
            self._snapshots.pop(place, None)
            with suppress(NoderuntimeError):
                await self._database.write((_DROP_SNAPSHOT, place))
            raise

    async def drop_snapshot(self, snapshot: Snapshot) -> None:
        """Remove the record of a mount that was unmounted."""
        await self._database.write((_DROP_SNAPSHOT, (snapshot.key, snapshot.target)))
        self._snapshots.pop((snapshot.key, snapshot.target), None)

    async def settle(self, measured: Mapping[int, tuple[int, int]]) -> None:
        """Record that layers are synced to disk, with their disk usage in bytes and inodes."""
        settled = [
            replace(layer, bytes=measured[layer.number][0], inodes=measured[layer.number][1], boot="")
            for layer in self._layers.values()
            if layer.number in measured
        ]
        self._layers |= {layer.chain_id: layer for layer in settled}
        await self._database.write(*((_PUT_LAYER, astuple(layer)) for layer in settled))

    async def forget_lost(self) -> None:
        """Delete the rows of objects that were missing on disk at start."""
        lost, self._lost = self._lost, []
        await self._database.write(*lost)

    async def close(self) -> None:
        """Finish pending writes and release the database's lock."""
        await self._database.close()

    def _load_layers(self, connection: sqlite3.Connection, numbers: Collection[int]) -> None:
        rows = connection.execute(_select("layers", Layer)).fetchall()
        layers = [Layer(row[0], row[1], row[2], bool(row[3]), *row[4:]) for row in rows]
        self._last_number = max([*numbers, *(layer.number for layer in layers)], default=0)
        kept = {
            layer.chain_id: layer
            for layer in layers
            if layer.number in numbers and layer.boot in {"", self.boot}
        }
        while hanging := [one for one in kept.values() if one.parent and one.parent not in kept]:
            for layer in hanging:
                del kept[layer.chain_id]
        self._layers = kept
        self._lost += [(_DROP_LAYER, (layer.number,)) for layer in layers if layer.chain_id not in kept]

    def _load_images(self, connection: sqlite3.Connection, config_of: ConfigOf) -> None:
        for image_id, chain_id, size in connection.execute(_select("images", StoredImage)):
            config = config_of(image_id) if not chain_id or chain_id in self._layers else None
            if config is not None:
                self._images[image_id] = StoredImage(image_id, chain_id, size, config)
            else:
                _log.warning("image is incomplete, dropping it", image=image_id)
                self._lost += [(_DROP_IMAGE, (image_id,)), (_DROP_NAMES, (image_id,))]
        for row in connection.execute(_select("names", Name)):
            name = Name(*row)
            if name.image_id in self._images:
                self._names[name.name] = name


def _put_back(table: dict[str, T], values: Mapping[str, T | None]) -> None:
    for key, value in values.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
