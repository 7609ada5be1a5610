"""Build the small images of demo and tests, and push them to a registry over plain HTTP.

``python image/testimages.py --registry 127.0.0.1:5000 --busybox /path/to/static/busybox``

Nearly all of them are one layer with a static busybox, and differ in their configuration. Every run
produces the same digests.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from buildah import buildah, locked, push

STORE = "localhost/noderuntime-test"
BASE = f"{STORE}:base"
USERS = """\
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/www:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""
GROUPS = """\
root:x:0:
www-data:x:33:
staff:x:50:www-data
nobody:x:65534:
"""
DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "www")


@dataclass(frozen=True)
class Image:
    """A repository with a tag, and the options of its configuration."""

    name: str
    options: tuple[str, ...]
    form: str = "oci"


IMAGES = (
    Image("busybox:1.35", ("--cmd", '["sh"]')),
    Image("docker-schema2:1", ("--cmd", '["sh"]', "--label", "format=schema2"), form="v2s2"),
    Image("web:1", ("--entrypoint", '["httpd", "-f", "-v", "-h", "/www"]', "--cmd", "-p 8080")),
    Image("user-number:1", ("--user", "1000", "--cmd", '["id"]')),
    Image("user-name:1", ("--user", "www-data", "--cmd", '["id"]')),
    Image(
        "entrypoint:1",
        (
            *("--entrypoint", '["echo", "from", "entrypoint"]', "--cmd", '["and", "cmd"]'),
            *("--env", "GREETING=hello", "--workingdir", "/www"),
        ),
    ),
)


def main() -> None:
    """Build and push all images."""
    parser = argparse.ArgumentParser(
        description="Build the test images and push them to a registry over plain HTTP."
    )
    parser.add_argument("--registry", required=True, help="host:port")
    parser.add_argument("--busybox", type=Path, default=Path("/bin/busybox"), help="a static busybox")
    parser.add_argument("--pause", type=Path, default=Path("/usr/bin/catatonit"), help="a static catatonit")
    arguments = parser.parse_args()
    with locked():
        make_base(arguments.busybox)
        for image in IMAGES:
            publish(image, BASE, arguments.registry)
        publish_pause(arguments.pause, arguments.registry)


def make_base(busybox: Path) -> None:
    """Build the base of the others: busybox, a link for each applet, and users."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in DIRECTORIES:
            (root / name).mkdir()
        (root / "tmp").chmod(0o1777)
        (root / "bin/busybox").write_bytes(busybox.read_bytes())
        (root / "bin/busybox").chmod(0o755)
        for applet in subprocess.run(
            [busybox, "--list"], capture_output=True, text=True, check=True
        ).stdout.split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text(USERS)
        (root / "etc/group").write_text(GROUPS)
        (root / "www/index.html").write_text("served by busybox\n")
        commit("scratch", BASE, ("--env", "PATH=/bin"), root)


def publish(image: Image, base: str, registry: str) -> None:
    """Commit base with the image's configuration, and push it."""
    name = f"{STORE}/{image.name}"
    commit(base, name, image.options)
    push(name, tls_verify=False, to=f"{registry}/{image.name}", form=image.form)


def publish_pause(program: Path, registry: str) -> None:
    """Push the image of a sandbox's first process in containerd: one static program that waits."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "pause").write_bytes(program.read_bytes())
        (root / "pause").chmod(0o755)
        name = f"{STORE}/pause:3.10"
        commit("scratch", name, ("--entrypoint", '["/pause", "-P"]', "--user", "65535:65535"), root)
        push(name, tls_verify=False, to=f"{registry}/pause:3.10")


def commit(base: str, name: str, options: tuple[str, ...], tree: Path | None = None) -> None:
    """Commit base with the files of tree and a changed configuration."""
    container = buildah("from", base)
    try:
        if tree:
            buildah("copy", "--quiet", container, str(tree), "/")
        buildah("config", *options, container)
        buildah("commit", "--quiet", "--timestamp=0", container, name)
    finally:
        buildah("rm", container)


if __name__ == "__main__":
    main()
