"""``noderuntime images load``: Load the images of a ``docker save`` archive or an OCI image layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noderuntime.cli import options


def run(arguments: Sequence[str]) -> int:
    """Load an archive through the daemon and print the images' IDs."""
    parser = options.parser("images load", __doc__)
    parser.add_argument("path", type=Path, help="the archive, or the directory of the layout")
    args = parser.parse_args(arguments)
    for image in options.call(args.socket, lambda client: client.load(args.path.absolute())):
        print(image)
    return 0
