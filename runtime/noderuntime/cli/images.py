"""``noderuntime images``: List the node's images and the disk usage of their filesystem.

The subcommands pull and load add images to the daemon's native image store.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence

from noderuntime.cli import load, options, pull, text
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient

_ACTIONS = {"pull": pull.run, "load": load.run}
_HEAD = ("IMAGE", "IMAGE ID", "SIZE", "PINNED")


def run(arguments: Sequence[str]) -> int:
    """List images by name, or run the subcommand that the first argument names."""
    if arguments and (action := _ACTIONS.get(arguments[0])):
        return action(arguments[1:])
    parser = options.parser("images", __doc__)
    options.add_output(parser)
    args = parser.parse_args(arguments)
    images, filesystems = options.call(args.socket, _list)
    if args.output == "json":
        listed = options.as_dict(cri.ListImagesResponse(images=images))
        sys.stdout.write(options.as_json({**listed, **options.as_dict(filesystems)}))
        return 0
    sys.stdout.write(text.table(_HEAD, sorted(_rows(images))))
    for filesystem in filesystems.image_filesystems:
        mountpoint = text.printable(filesystem.fs_id.mountpoint)
        used = text.size(filesystem.used_bytes.value)
        print(f"\n{mountpoint}: {used} in {filesystem.inodes_used.value} files")
    return 0


async def _list(client: CriClient) -> tuple[list[cri.Image], cri.ImageFsInfoResponse]:
    images, filesystems = await asyncio.gather(client.images(), client.image_filesystems())
    return images, filesystems


def _rows(images: Iterable[cri.Image]) -> Iterable[tuple[str, ...]]:
    """Return a row for each tag of an image, or for each digest of an image without tags."""
    for image in images:
        for name in image.repo_tags or image.repo_digests or ("",):
            pinned = "yes" if image.pinned else ""
            yield name, text.short_id(image.id), text.size(image.size), pinned
