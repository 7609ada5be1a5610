"""Images as volumes: read-only filesystems beside a container's own (CRI Mount.image)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts


async def mount_image_volumes(parts: Parts, container: Container) -> Mapping[int, Path]:
    """Mount the images that a container wants to see; return where they are, by the mount's number.

    They go with the container's snapshot. NotFound when the node lacks an image, or an image the path.
    """
    found: dict[int, Path] = {}
    container.volume_images = ()
    directory = parts.paths.container(container.id).volumes
    for number, mount in enumerate(container.config.mounts):
        if mount.HasField("image"):
            _check(mount)
            image = await parts.images.image(mount.image.image)
            target = directory / str(number)
            await FILES.run(lambda path=target: path.mkdir(mode=0o700, parents=True))
            container.volume_images += (image.id,)
            found[number] = await parts.images.volume(container.id, image, target, mount.image_sub_path)
    return found


def _check(mount: api_pb2.Mount) -> None:
    if mount.host_path:
        raise InvalidArgument("a mount has a host_path and an image: it can come from one of them only")
    if not mount.readonly:
        raise InvalidArgument("an image volume is read-only: nothing can be written to an image")
    if mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        raise InvalidArgument("an image volume is private: it has no mounts to pass on")
