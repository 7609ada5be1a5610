"""Build the project's image with buildah, and push it.

``python image/build.py --image registry.example/noderuntime:dev --push``

Needs what ``make setup`` installs: buildah, uv, the static programs in ``$NODERUNTIME_CACHE/bin``, and
mmdebstrap if the base image cannot be pulled. Everything but our own code is cached in
``$NODERUNTIME_CACHE/image``: a rebuild after an edit takes seconds.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from base import UPSTREAM, base_image
from buildah import CACHE, SOURCE, buildah, locked, push
from packages import packages

TOOLS = ("runc", "runsc", "bridge", "host-local", "loopback", "portmap")
SEALED = "localhost/noderuntime-sealed"


def main() -> None:
    """Build the image, and push it with --push."""
    parser = argparse.ArgumentParser(description="Build the project's image, and push it.")
    parser.add_argument("--image", required=True, help="name and tag of the image")
    parser.add_argument("--base", help=f"base image (default: {UPSTREAM}, or the same from mmdebstrap)")
    parser.add_argument("--push", action="store_true", help="push it to the registry in its name")
    parser.add_argument(
        "--tls-verify", choices=("true", "false"), default="true", help="false allows plain HTTP"
    )
    arguments = parser.parse_args()
    with locked():
        build(arguments.image, arguments.base or base_image())
        if arguments.push:
            push(arguments.image, tls_verify=arguments.tls_verify == "true")
    print(f"image: {arguments.image}")


def build(image: str, base: str) -> None:
    """Build the Containerfile. The bundle's stage gets a tag, so that pruning keeps it."""
    common = (
        *("build", "--quiet", "--layers", "--isolation=chroot", "--format=oci", "--timestamp=0"),
        f"--build-arg=BASE={base}",
        f"--build-context=tools={tools()}",
        f"--build-context=packages={packages()}",
        f"--file={SOURCE / 'Containerfile'}",
    )
    buildah(*common, "--target=sealed", f"--tag={SEALED}", str(SOURCE))
    buildah(*common, f"--tag={image}", str(SOURCE))
    buildah("rmi", "--prune")


def tools() -> Path:
    """Return a directory that contains the static programs only."""
    home = CACHE / "image/tools"
    home.mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        if not (CACHE / "bin" / tool).is_file():
            raise SystemExit(f"{CACHE / 'bin' / tool} is missing: run make setup")
        shutil.copy2(CACHE / "bin" / tool, home / tool)
    return home


if __name__ == "__main__":
    main()
