"""The small images that every cluster needs: containerd's pause image, busybox, and their variants."""

from __future__ import annotations

import sys

from harness.paths import REPO
from harness.registry import Registry
from harness.rootfs import base
from harness.run import run

PAUSE = "pause:3.10"
BUSYBOX = "busybox:1.35"


def push_all(registry: Registry) -> None:
    """Build and push the images that the registry's storage does not have."""
    run(
        *(sys.executable, str(REPO / "image/testimages.py"), f"--registry={registry.address}"),
        f"--busybox={base() / 'bin/busybox'}",
    )
