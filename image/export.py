"""Copy the bundle out of an image of build.py: ``python image/export.py IMAGE DIRECTORY``.

The bundle runs at one path only: mount the directory, or chroot, so that it is ``/opt/noderuntime``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from buildah import buildah, locked


def main(image: str, directory: Path) -> None:
    """Copy the image's /opt/noderuntime to the directory, which must not exist."""
    with locked():
        container = buildah("from", image)
        try:
            shutil.copytree(Path(buildah("mount", container)) / "opt/noderuntime", directory, symlinks=True)
        finally:
            buildah("rm", container)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
