"""Reads image archives: the output of ``docker save`` and OCI layouts, as tar files or directories.

The images of an archive are pulled, with the archive in place of the registry. The older format of
``docker save`` has no manifests, so they are generated here, which requires the digests of the layers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from noderuntime.core.blocking import on_files
from noderuntime.core.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted, first_problem
from noderuntime.images import oci
from noderuntime.images.archive.members import Files, Piece, open_files
from noderuntime.images.archive.source import ArchiveRemote, read_whole
from noderuntime.images.reference import Reference, is_short, parse
from noderuntime.images.remote import Descriptor
from noderuntime.node.layers.tar.limits import Limits

_CONTAINERD_NAME = "io.containerd.image.name"
_OCI_NAME = "org.opencontainers.image.ref.name"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_UNNAMED = "archive.invalid/image"
_IMAGES_LIMIT = 1000
_BLOCK = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image in an archive."""

    remote: ArchiveRemote
    reference: Reference
    """Its name in errors: its first name, or a placeholder."""
    names: tuple[str, ...]


_Names = Annotated[list[str], Field(max_length=_IMAGES_LIMIT)]
_Paths = Annotated[list[str], Field(max_length=oci.LAYERS_LIMIT)]


class _Saved(oci.Document):
    """An image in ``manifest.json`` of a ``docker save`` archive."""

    config: str = Field(alias="Config")
    names: _Names = Field(default=[], alias="RepoTags")
    layers: _Paths = Field(default=[], alias="Layers")


class _Entry(oci.Descriptor):
    """An image in ``index.json`` of an OCI layout."""

    annotations: dict[str, str] = Field(default={})


class _Layout(oci.Document):
    """``index.json`` of an OCI layout."""

    manifests: list[_Entry] = Field(default=[], max_length=_IMAGES_LIMIT)


_SAVED = TypeAdapter(Annotated[list[_Saved], Field(max_length=_IMAGES_LIMIT)])


@asynccontextmanager
async def opened(path: Path, spool: Path, limits: Limits) -> AsyncIterator[list[ArchivedImage]]:
    """Yield the images of an archive. They must be pulled before the context is left.

    ``spool`` is a directory with room for the uncompressed archive. InvalidArgument if the path is not an
    image archive or is damaged, DataLoss if its parts contradict each other, ResourceExhausted if the
    uncompressed archive exceeds the limits.
    """
    files = await _read(path, lambda: open_files(path, spool, limits))
    try:
        yield await _read(path, lambda: _images(files))
    finally:
        await on_files(f"close {path}", files.close)


async def _read(path: Path, call: Callable[[], T]) -> T:
    try:
        return await on_files(f"read {path}", call)
    except (InvalidArgument, NotFound, DataLoss, ResourceExhausted) as error:
        raise type(error)(f"{path}: {error}") from error


def _images(files: Files) -> list[ArchivedImage]:
    """Return the images of the archive. Blocks."""
    if (index := _optional(files, "index.json")) is not None:
        found = _of_layout(files, index)
    elif (saved := _optional(files, "manifest.json")) is not None:
        found = _of_docker_save(files, saved)
    else:
        raise InvalidArgument("not an image archive: it contains neither index.json nor manifest.json")
    if not found:
        raise InvalidArgument("the archive contains no image for this machine's platform")
    return found


def _of_layout(files: Files, raw: bytes) -> list[ArchivedImage]:
    """Return the images of an OCI layout, whose names are in annotations."""
    names: dict[Descriptor, list[str]] = {}
    for entry in oci.read(_Layout, raw).manifests:
        if entry.media_type in oci.INDEX_TYPES or oci.by_preference(oci.Index(manifests=[entry])):
            found = Descriptor(entry.media_type, entry.digest, entry.size)
            names.setdefault(found, []).extend(_names_of(entry.annotations))
    return [_image(files, target, {}, found) for target, found in names.items()]


def _of_docker_save(files: Files, raw: bytes) -> list[ArchivedImage]:
    """Return the images of the format that Docker wrote before it supported OCI layouts."""
    try:
        saved = _SAVED.validate_json(raw)
    except ValidationError as error:
        raise InvalidArgument(f"manifest.json: {first_problem(error)}") from error
    known: dict[str, Descriptor] = {}
    found = []
    for image in saved:
        for name, kind in (*((layer, _LAYER) for layer in image.layers), (image.config, _CONFIG)):
            if name not in known:
                known[name] = _described(files.find(name), kind)
        manifest = _manifest(known[image.config], [known[name] for name in image.layers])
        members = {known[name].digest: name for name in (image.config, *image.layers)}
        found.append(_image(files, manifest, members, image.names))
    return found


def _image(
    files: Files, target: Descriptor, members: Mapping[str, str], names: Iterable[str]
) -> ArchivedImage:
    references = [parse(name) for name in dict.fromkeys(names)]
    reference = references[0] if references else parse(f"{_UNNAMED}@{target.digest}")
    stored = tuple(reference.stored for reference in references)
    return ArchivedImage(ArchiveRemote(files, target, members), reference, stored)


def _names_of(annotations: Mapping[str, str]) -> list[str]:
    """Return the full names in annotations. A tag alone does not identify the repository."""
    if name := annotations.get(_CONTAINERD_NAME):
        return [name]
    name = annotations.get(_OCI_NAME, "")
    return [name] if name and not is_short(name) else []


def _manifest(config: Descriptor, layers: Iterable[Descriptor]) -> Descriptor:
    """Return the descriptor of a generated manifest, which an archive of the older format lacks."""

    def entry(found: Descriptor) -> dict[str, Any]:
        return {"mediaType": found.media_type, "digest": found.digest, "size": found.size}

    document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": entry(config)}
    raw = json.dumps(document | {"layers": [entry(layer) for layer in layers]}).encode()
    return Descriptor(_MANIFEST, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw), raw)


def _described(piece: Piece, media_type: str) -> Descriptor:
    state = hashlib.sha256()
    at = 0
    while block := piece.read(at, _BLOCK):
        state.update(block)
        at += len(block)
    return Descriptor(media_type, f"sha256:{state.hexdigest()}", at)


def _optional(files: Files, name: str) -> bytes | None:
    try:
        return read_whole(files.find(name))
    except NotFound:
        return None
