"""Building images from layers, and pushing those that the pods of a run need."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Sequence

from realnode.containerd import IMAGE
from realnode.image import busybox_layer
from realnode.tools import tool
from registries.content import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Content, described, digest
from registries.real import RealRegistry

from noderuntime.node.layers.zstandard import zstd

PAUSE = "noderuntime.test/pause:1"
ZSTD_LAYER = f"{OCI_LAYER.removesuffix('+gzip')}+zstd"
_TAG = "1"


def image(layers: Sequence[bytes], media_type: str = OCI_LAYER, command: Sequence[str] = ("sh",)) -> Content:
    """Return an image of uncompressed layers, with tag 1."""
    content = Content()
    blobs = [content.keep(_compressed(tar, media_type), media_type) for tar in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in layers]},
    }
    config = content.keep(json.dumps(document).encode(), OCI_CONFIG)
    manifest = {"config": described(config), "layers": [described(blob) for blob in blobs]}
    content.manifest(OCI_MANIFEST, manifest, _TAG)
    return content


def base() -> bytes:
    """Return the layer of the test image."""
    return busybox_layer(tool("busybox").read_bytes())


def push_for_pods(registry: RealRegistry) -> None:
    """Push the pods' image and the pause image of containerd's sandboxes."""
    registry.push(_repository(IMAGE), image([base()]))
    registry.push(_repository(PAUSE), image([_pause()], command=("/pause", "-P")))


def _repository(name: str) -> str:
    return name.partition("/")[2].partition(":")[0]


def _compressed(tar: bytes, media_type: str) -> bytes:
    return zstd.compress(tar, 3) if media_type == ZSTD_LAYER else gzip.compress(tar, 6, mtime=0)


def _pause() -> bytes:
    program, buffer = tool("catatonit").read_bytes(), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()
