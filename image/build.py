"""Build the project's image with buildah, and push it.

``python image/build.py --image registry.example/noderuntime:dev --push``

Needs buildah, pip, and the static programs in ``$NODERUNTIME_CACHE/bin``; where no
registry serves the base image also mmdebstrap. What does not change with our own code is
cached in ``$NODERUNTIME_CACHE/image``: a rebuild after an edit takes seconds.
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
    """Build, and push if told to."""
    parser = argparse.ArgumentParser(description="Build the project's image, and push it.")
    parser.add_argument("--image", required=True, help="name and tag to give the image")
    parser.add_argument("--base", help=f"base image; default {UPSTREAM}, or one made by mmdebstrap")
    parser.add_argument("--push", action="store_true", help="push it to the registry in its name")
    parser.add_argument("--tls-verify", choices=("true", "false"), default="true", help="false: plain HTTP")
    arguments = parser.parse_args()
    with locked():
        build(arguments.image, arguments.base or base_image())
        if arguments.push:
            push(arguments.image, tls_verify=arguments.tls_verify == "true")
    print(f"image: {arguments.image}")


def build(image: str, base: str) -> None:
    """Build the Containerfile; the bundle's stage gets a name, so that pruning spares it."""
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
    """Return a directory with the static programs, and nothing else."""
    home = CACHE / "image/tools"
    home.mkdir(parents=True, exist_ok=True)
    for tool in TOOLS:
        if not (CACHE / "bin" / tool).is_file():
            raise SystemExit(f"{CACHE / 'bin' / tool} is missing: make setup builds it")
        shutil.copy2(CACHE / "bin" / tool, home / tool)
    return home


if __name__ == "__main__":
    main()
