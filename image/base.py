"""The base image: Debian's from its registry, or the same built from packages if it cannot be pulled."""

from __future__ import annotations

import sys

from buildah import CACHE, SOURCE, buildah, run, works

UPSTREAM = "docker.io/library/debian:bookworm-slim"
OWN = "localhost/noderuntime-base:bookworm"
SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
# Debian's slim images do not have these either.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


def base_image() -> str:
    """Return the name of the base image, which is then in the store."""
    if works("inspect", "--type=image", OWN):
        return OWN
    if works("pull", "--quiet", UPSTREAM):
        return UPSTREAM
    make()
    return OWN


def make() -> None:
    """Build the base image with mmdebstrap; /usr is merged from the start, otherwise it would need Perl."""
    archive = CACHE / "image/base.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    run(
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--include=usr-is-merged",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        "bookworm",
        str(archive),
        *run(sys.executable, str(SOURCE / "scripts/aptsources.py"), *SUITES).splitlines(),
    )
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(archive), "/")
    buildah("commit", "--quiet", "--rm", container, OWN)
    archive.unlink()
