"""An image of random bytes to pull: the transport does not interpret layers."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from noderuntime.images.remote import Descriptor

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Content:
    """Blobs and manifests by digest, manifests by tag."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.tags: dict[str, str] = {}

    def blob(self, size: int, media_type: str = OCI_LAYER) -> Descriptor:
        return self.keep(self._random.randbytes(size), media_type)

    def keep(self, content: bytes, media_type: str) -> Descriptor:
        self.blobs[digest(content)] = content
        return Descriptor(media_type, digest(content), len(content))

    def manifest(self, media_type: str, document: dict[str, Any], tag: str = "") -> Descriptor:
        raw = json.dumps({"schemaVersion": 2, "mediaType": media_type, **document}).encode()
        found = Descriptor(media_type, digest(raw), len(raw))
        self.manifests[found.digest] = (media_type, raw)
        if tag:
            self.tags[tag] = found.digest
        return found

    def image(self, tag: str, sizes: tuple[int, ...], *, docker: bool = False) -> Descriptor:
        """Add an image with layers of these sizes."""
        kind, config_type, layer_type = (
            (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
            if docker
            else (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
        )
        config = self.keep(json.dumps({"os": "linux", "for": tag}).encode(), config_type)
        layers = [self.blob(size, layer_type) for size in sizes]
        return self.manifest(
            kind, {"config": described(config), "layers": [described(layer) for layer in layers]}, tag
        )


def described(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def parts(raw: bytes) -> list[Descriptor]:
    """Return the descriptors in a manifest or index."""
    document = json.loads(raw)
    entries = document.get("manifests") or [document["config"], *document["layers"]]
    return [Descriptor(entry["mediaType"], entry["digest"], entry["size"]) for entry in entries]
