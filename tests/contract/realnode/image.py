"""A small busybox image as an OCI image layout in a tarball, for ``ctr images import``."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

_APPLETS = (
    *("sh", "sleep", "echo", "cat", "ls", "id", "true", "false", "hostname", "uname"),
    *("ip", "ping", "wget", "httpd"),
)
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/:/bin/sh\n"
_GROUP = b"root:x:0:\nweb:x:33:\nextra:x:44:web\n"


def write_image(
    target: Path,
    name: str,
    busybox: Path,
    command: Sequence[str],
    entrypoint: Sequence[str] = (),
    *,
    volumes: Sequence[str] = (),
) -> None:
    """Write an image with a name (with tag), a default command, and the paths of volumes."""
    layer = busybox_layer(busybox.read_bytes())
    blob = gzip.compress(layer, mtime=0)
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": list(entrypoint),
                "Cmd": list(command),
                "Env": ["PATH=/bin"],
                "WorkingDir": "/",
                "Volumes": {path: {} for path in volumes},
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", blob)],
        }
    )
    described = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    described["annotations"] = {"io.containerd.image.name": name}
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": [described]}))
        for content in (blob, config, manifest):
            _add(archive, f"blobs/sha256/{_digest(content).removeprefix('sha256:')}", content)


def busybox_layer(busybox: bytes) -> bytes:
    """Return a small root filesystem as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in ("bin", "etc", "proc", "sys", "dev", "root", "tmp", "run", "var"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            archive.addfile(entry)
        _add(archive, "bin/busybox", busybox, 0o755)
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            archive.addfile(link)
        _add(archive, "etc/passwd", _PASSWD)
        _add(archive, "etc/group", _GROUP)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
