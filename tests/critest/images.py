"""The images that critest pulls: repository, tags and required content."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from critest.layers import Layer
from critest.programs import busybox, compiled, debian_files
from critest.registry import Image

DIGEST_IMAGE = "k8s-staging-cri-tools/test-image-digest"
_TOOLS = "k8s-staging-cri-tools"
_E2E = "e2e-test-images"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NGINX_PACKAGES = ("nginx", "nginx-common", "libc6", "libpcre2-8-0", "libssl3", "zlib1g", "libcrypt1")


def images() -> Iterator[tuple[str, tuple[str, ...], Image]]:
    """Yield (repository, tags, image); an image without tags is pulled by its digest."""
    yield f"{_E2E}/busybox", ("1.29-2",), _busybox_image()
    yield f"{_E2E}/nginx", ("1.14-2",), _nginx(80)
    yield f"{_TOOLS}/hostnet-nginx-amd64", ("latest",), _nginx(12003)
    serve = ["sh", "-c", "echo httpd is ready; exec httpd -f -p 80 -h /"]
    yield f"{_E2E}/httpd", ("2.4.39-4",), _busybox_image(marker="index.html", Cmd=serve)
    yield f"{_E2E}/nonewprivs", ("1.3",), _single("nonewprivs", 0o4755, Entrypoint=["/nonewprivs"])
    yield "pause", ("3.9",), _single("pause", 0o755, Entrypoint=["/pause"], User="65535:65535")
    yield "pause", ("3.10",), _single("pause", 0o755, Entrypoint=["/pause"], User="65534:65534")
    for name, user in (
        ("uid", "1002"),
        ("username", "www-data"),
        ("uid-group", "1003:1004"),
        ("username-group", "www-data:1004"),
    ):
        yield f"{_TOOLS}/test-image-user-{name}", ("latest",), _busybox_image(User=user)
    yield f"{_TOOLS}/test-image-predefined-group", ("latest",), _predefined_group()
    for number in "123":
        yield f"{_TOOLS}/test-image-{number}", ("latest",), _busybox_image(marker=f"test-image-{number}")
    yield f"{_TOOLS}/test-image-latest", ("latest",), _busybox_image(marker="test-image-latest")
    for tag in ("test", "all"):
        yield f"{_TOOLS}/test-image-tag", (tag,), _busybox_image(marker=tag)
    yield f"{_TOOLS}/test-image-tags", ("1", "2", "3"), _busybox_image(marker="same-image")
    yield DIGEST_IMAGE, (), _marker_only("test-image-digest")


@cache
def _base() -> bytes:
    """Return the layer of most images: busybox under the name of each applet."""
    layer = Layer()
    for name in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "var/lib", "var/log"):
        layer.directory(name)
    layer.directory("tmp", 0o1777)
    layer.symlink("var/run", "/run")
    program = busybox()
    layer.file("bin/busybox", program.read_bytes(), 0o755)
    for applet in _applets(program):
        layer.hard_link(f"bin/{applet}", "bin/busybox")
    layer.file("etc/passwd", _PASSWD.encode())
    layer.file("etc/group", _GROUP.encode())
    return layer.tar()


_PASSWD = """root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
_GROUP = """root:x:0:
wheel:x:10:root
www-data:x:33:
nogroup:x:65534:
"""


def _applets(program: Path) -> list[str]:
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return [name for name in listed if name != "busybox"]


def _busybox_image(marker: str = "", **config: object) -> Image:
    layers = (_base(),) if not marker else (_base(), _marker(marker))
    return Image(layers, {"Env": [_PATH], "Cmd": ["sh"], **config})


def _marker(name: str) -> bytes:
    """Return a layer that makes an image unique."""
    layer = Layer()
    layer.file(name, b"")
    return layer.tar()


def _marker_only(name: str) -> Image:
    return Image((_marker(name),), {"Env": [_PATH]})


def _single(program: str, mode: int, **config: object) -> Image:
    layer = Layer()
    layer.file(program, compiled(program).read_bytes(), mode)
    return Image((layer.tar(),), {"Env": [_PATH], **config})


def _predefined_group() -> Image:
    layer = Layer()
    layer.directory("etc")
    layer.file("etc/passwd", (_PASSWD + "default-user:x:1000:1000::/home:/bin/sh\n").encode())
    members = "default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
    layer.file("etc/group", (_GROUP + members).encode())
    return Image((_base(), layer.tar()), {"Env": [_PATH], "Cmd": ["sh"], "User": "1000"})


@cache
def _nginx_files() -> bytes:
    """Return a layer with Debian's nginx and the libraries that it needs."""
    layer = Layer()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        debian_files(_NGINX_PACKAGES, root)
        for tree in ("usr/share/doc", "usr/share/man", "usr/share/lintian", "etc/init.d", "lib/systemd"):
            for path in sorted((root / tree).rglob("*"), reverse=True):
                path.unlink() if not path.is_dir() or path.is_symlink() else path.rmdir()
        for name in ("var/lib/nginx", "var/log/nginx"):
            (root / name).mkdir(parents=True, exist_ok=True)
        layer.tree(root)
    return layer.tar()


def _nginx(port: int) -> Image:
    layer = Layer()
    layer.directory("etc/nginx")
    layer.directory("usr/share/nginx/html")
    layer.file("etc/nginx/nginx.conf", _NGINX_CONF.replace("PORT", str(port)).encode())
    layer.file("usr/share/nginx/html/index.html", b"<html><body>It works.</body></html>\n")
    layer.file("usr/share/nginx/html/50x.html", b"<html><body>It does not.</body></html>\n")
    command = ["/usr/sbin/nginx", "-g", "daemon off;"]
    return Image((_base(), _nginx_files(), layer.tar()), {"Env": [_PATH], "Cmd": command})


_NGINX_CONF = """user nobody nogroup;
worker_processes 1;
pid /var/run/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  server { listen PORT; root /usr/share/nginx/html; }
}
"""
