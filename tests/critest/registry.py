"""A registry on loopback, with Docker schema 2 images behind manifest lists.

The first entry of each list is an image for another architecture, so that a client
that does not select by platform fails.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from realnode.tools import tool

from critest.layers import Layer

_DOCKER = "application/vnd.docker"
_MANIFEST = f"{_DOCKER}.distribution.manifest.v2+json"
_LIST = f"{_DOCKER}.distribution.manifest.list.v2+json"


@dataclass(frozen=True)
class Image:
    """An image to push: layers as tar archives, and the ``config`` part of the image config."""

    layers: tuple[bytes, ...]
    config: dict[str, object] = field(default_factory=dict)


class Registry:
    """Debian's docker-registry as a process with its storage in a directory."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
            "http": {"addr": self.address},
        }
        (directory / "registry.yml").write_text(json.dumps(config))
        self._process = subprocess.Popen(
            [tool("docker-registry"), "serve", directory / "registry.yml"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._await_answer()

    def close(self) -> None:
        """Stop the process."""
        self._process.terminate()
        self._process.wait(timeout=20)

    def push(self, repository: str, tags: tuple[str, ...], image: Image) -> str:
        """Push an image under all its tags; return the digest of its manifest list."""
        manifests = [
            {
                **_descriptor(_MANIFEST, self._push_manifest(repository, part, architecture)),
                "platform": {"architecture": architecture, "os": "linux"},
            }
            for architecture, part in (("arm64", Image((_decoy(),))), ("amd64", image))
        ]
        listed = _json({"schemaVersion": 2, "mediaType": _LIST, "manifests": manifests})
        for tag in tags or (_digest(listed),):
            self._put(f"{repository}/manifests/{tag}", listed, _LIST)
        return _digest(listed)

    def _push_manifest(self, repository: str, image: Image, architecture: str) -> bytes:
        config = _json(
            {
                "architecture": architecture,
                "os": "linux",
                "created": "2020-01-01T00:00:00Z",
                "config": image.config,
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in image.layers]},
            }
        )
        blobs = [gzip.compress(layer, 6, mtime=0) for layer in image.layers]
        for blob in (config, *blobs):
            self._push_blob(repository, blob)
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(f"{_DOCKER}.container.image.v1+json", config),
                "layers": [_descriptor(f"{_DOCKER}.image.rootfs.diff.tar.gzip", blob) for blob in blobs],
            }
        )
        self._put(f"{repository}/manifests/{_digest(manifest)}", manifest, _MANIFEST)
        return manifest

    def _push_blob(self, repository: str, blob: bytes) -> None:
        started = self._call("POST", f"{repository}/blobs/uploads/", b"", "application/octet-stream")
        place = started["Location"]
        path = place.partition("/v2/")[2]
        self._put(
            f"{path}{'&' if '?' in path else '?'}digest={_digest(blob)}", blob, "application/octet-stream"
        )

    def _put(self, path: str, body: bytes, media_type: str) -> None:
        self._call("PUT", path, body, media_type)

    def _call(self, method: str, path: str, body: bytes, media_type: str) -> dict[str, str]:
        request = urllib.request.Request(
            f"http://{self.address}/v2/{path}", data=body, method=method, headers={"Content-Type": media_type}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(answer.headers)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self._call("GET", "", b"", "application/json")
                return
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise


def _decoy() -> bytes:
    """Return a layer without a program."""
    layer = Layer()
    layer.file("wrong-architecture", b"")
    return layer.tar()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(content), "digest": _digest(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
