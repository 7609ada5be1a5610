"""Custom OCI image layouts, as tarballs for ``ctr images import`` or to be served."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_NAME = "io.containerd.image.name"

Described = dict[str, Any]


class Layout:
    """Collects blobs and names, and writes them out."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        """By digest."""
        self._named: list[Described] = []

    def blob(self, media_type: str, content: bytes) -> Described:
        """Store a blob and return its descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[digest] = content
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def image(
        self,
        layers: Sequence[Mapping[str, bytes]],
        config: Mapping[str, Any] | None = None,
        architecture: str = "amd64",
    ) -> Described:
        """Store a manifest. A layer is a dict of files by name. Adds ``id``, the config's digest."""
        tars = [_tar(files) for files in layers]
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config or {}),
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in tars],
            },
        }
        packed = [self.blob(LAYER, gzip.compress(one, mtime=0)) for one in tars]
        return self.manifest(document, layers=packed)

    def manifest(self, config: Mapping[str, Any], **fields: object) -> Described:
        """Store a config, and a manifest with these fields. Adds ``id``, the config's digest."""
        described = self.blob(_CONFIG, json.dumps(config).encode())
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, **fields}
        platform = {key: config[key] for key in ("os", "architecture")}
        return self.blob(_MANIFEST, json.dumps(manifest).encode()) | {
            "platform": platform,
            "id": described["digest"],
        }

    def index(self, *images: Described) -> Described:
        """Store an index of images for several platforms."""
        manifests = [{key: value for key, value in image.items() if key != "id"} for image in images]
        document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
        return self.blob(_INDEX, json.dumps(document).encode())

    def name(self, described: Described, name: str) -> None:
        """Give an image or an index a name with tag."""
        entry = {key: described[key] for key in ("mediaType", "digest", "size")}
        self._named.append(entry | {"annotations": {_NAME: name}})

    def named(self) -> Iterator[tuple[str, Described]]:
        """Yield the names with their descriptors."""
        for entry in self._named:
            yield entry["annotations"][_NAME], entry

    def write(self, target: Path) -> None:
        """Write the tarball."""
        with tarfile.open(target, "w") as archive:
            _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": self._named}
            _add(archive, "index.json", json.dumps(index).encode())
            for digest, content in self.blobs.items():
                _add(archive, f"blobs/sha256/{digest.removeprefix('sha256:')}", content)


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            _add(archive, name, content)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
