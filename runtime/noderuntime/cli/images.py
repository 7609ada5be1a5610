"""``noderuntime images``: the images of the node, and what their filesystem takes.

``images pull NAME`` and ``images load PATH`` bring some into a store of the daemon's own.
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
    """List images by name, or do what the first word says."""
    if arguments and (action := _ACTIONS.get(arguments[0])):
        return action(arguments[1:])
    parser = options.parser("images", __doc__)
    options.add_output(parser)
    chosen = parser.parse_args(arguments)
    images, filesystems = options.ask(chosen.socket, _listed)
    if chosen.output == "json":
        listed = options.as_dict(cri.ListImagesResponse(images=images))
        sys.stdout.write(options.as_json({**listed, **options.as_dict(filesystems)}))
        return 0
    sys.stdout.write(text.table(_HEAD, sorted(_rows(images))))
    for one in filesystems.image_filesystems:
        place = text.printable(one.fs_id.mountpoint)
        used = text.size(one.used_bytes.value)
        print(f"\n{place}: {used} in {one.inodes_used.value} files")
    return 0


async def _listed(client: CriClient) -> tuple[list[cri.Image], cri.ImageFsInfoResponse]:
    images, filesystems = await asyncio.gather(client.images(), client.image_filesystems())
    return images, filesystems


def _rows(images: Iterable[cri.Image]) -> Iterable[tuple[str, ...]]:
    """Give a row for each tag; an image without one goes by its digests."""
    for image in images:
        for name in image.repo_tags or image.repo_digests or ("",):
            pinned = "yes" if image.pinned else ""
            yield name, text.short_id(image.id), text.size(image.size), pinned
