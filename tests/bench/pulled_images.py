"""The images that are pulled, built once from this machine's files and cached outside of the checkout.

The cache is the storage of a registry, so a run only starts a registry on it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from realnode.tools import CACHE_BIN
from registries.content import OCI_LAYER, Content
from registries.real import RealRegistry

from bench.pushing import ZSTD_LAYER, base, image

_KEPT = CACHE_BIN.parent / "bench" / "images-1"
_TREE = Path("/usr")
_LARGE_BYTES, _LARGE_LAYERS = 440 << 20, 8
_LARGEST_FILE = 4 << 20
_SHARE = 4
"""One file in four is used, selected by the checksum of its path."""
_TINY_LAYERS, _TINY_FILES = 100, 10
_MANY, _MANY_FILES = 10, 600

Tar = tuple[bytes, int]
"""A layer and its number of files."""


def storage() -> tuple[Path, dict[str, object]]:
    """Return the registry storage with all images, and facts about each image."""
    facts = _KEPT / "facts.json"
    if not facts.exists():
        print(f"building the images in {_KEPT}", flush=True)
        partial = _KEPT.with_name(f"{_KEPT.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / facts.name).write_text(json.dumps(_make(partial)))
        shutil.rmtree(_KEPT, ignore_errors=True)
        partial.rename(_KEPT)
    for blob in filter(Path.is_file, (_KEPT / "storage").rglob("*")):
        blob.read_bytes()  # fills the page cache, so that neither side reads from the disk
    return _KEPT / "storage", json.loads(facts.read_text())


def _make(directory: Path) -> dict[str, object]:
    registry = RealRegistry(directory, directory / "storage", "registry")
    facts: dict[str, object] = {}
    try:
        for name, layers, media_type in _images():
            content = image([tar for tar, _ in layers], media_type)
            registry.push(name, content)
            facts[name] = _facts(layers, content)
    finally:
        registry.stop()
    return facts


def _images() -> Iterator[tuple[str, Sequence[Tar], str]]:
    busybox = (base(), 1)
    yield "small", [busybox], OCI_LAYER
    files = _files()
    large = [_tar(_until(files, _LARGE_BYTES // _LARGE_LAYERS)) for _ in range(_LARGE_LAYERS)]
    yield "large-gzip", large, OCI_LAYER
    yield "large-zstd", large, ZSTD_LAYER
    yield "tiny", [_tiny(number) for number in range(_TINY_LAYERS)], OCI_LAYER
    again = _files()
    for number in range(_MANY):
        halves = [_tar(islice(again, _MANY_FILES // 2)) for _ in range(2)]
        yield f"many-{number}", [busybox, *halves], OCI_LAYER


def many() -> list[str]:
    """Return the names of the images that are pulled at once."""
    return [f"many-{number}" for number in range(_MANY)]


def _facts(layers: Sequence[Tar], content: Content) -> dict[str, int]:
    return {
        "layers": len(layers),
        "files": sum(files for _, files in layers),
        "bytes": sum(len(tar) for tar, _ in layers),
        "compressed": sum(map(len, content.blobs.values())),
    }


def _files() -> Iterator[Path]:
    """Yield the same files each time, spread over all installed files."""
    for directory, names, files in os.walk(_TREE):
        names.sort()
        for path in (Path(directory, name) for name in sorted(files)):
            status = path.lstat()
            chosen = zlib.crc32(os.fsencode(path)) % _SHARE == 0
            if chosen and stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_FILE:
                yield path


def _until(files: Iterator[Path], size: int) -> Iterator[Path]:
    while size > 0 and (path := next(files, None)):
        size -= path.stat().st_size
        yield path


def _tar(files: Iterable[Path]) -> Tar:
    """Return a tar of the files and their parent directories."""
    buffer, seen, count = io.BytesIO(), set[Path](), 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in files:
            for parent in reversed(path.parents[:-1]):
                if parent not in seen:
                    seen.add(parent)
                    archive.add(parent, recursive=False)
            archive.add(path, recursive=False)
            count += 1
    return buffer.getvalue(), count


def _tiny(number: int) -> Tar:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in range(_TINY_FILES):
            entry = tarfile.TarInfo(f"data/{number}/{file}")
            entry.size = 1000
            archive.addfile(entry, io.BytesIO(f"{number} {file}".encode().ljust(entry.size)))
    return buffer.getvalue(), _TINY_FILES
