"""``noderuntime images load``: the images of a ``docker save`` archive or an OCI layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noderuntime.cli import options


def run(arguments: Sequence[str]) -> int:
    """Have the daemon load an archive; print the images' IDs."""
    parser = options.parser("images load", __doc__)
    parser.add_argument("path", type=Path, help="of the archive or the layout's directory")
    chosen = parser.parse_args(arguments)
    for image in options.ask(chosen.socket, lambda client: client.load(chosen.path.absolute())):
        print(image)
    return 0
