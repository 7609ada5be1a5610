"""Anonymous volumes: the paths that an image's config declares as volumes (OCI image config, ``Volumes``).

Each is a directory below the state directory, so that it is neither in memory nor on overlayfs, and is
writable although the root filesystem is read-only. It starts with the content that the image has at its path,
and is removed with the container.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path

from noderuntime.core.blocking import on_files
from noderuntime.core.errors import HostError, InvalidArgument, ResourceExhausted
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import Image
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.host import syscalls
from noderuntime.node.host.base import UserNamespace
from noderuntime.node.host.copytree import copy_tree
from noderuntime.node.layers.room import check_free_disk
from noderuntime.node.spec.validation import check_text

DIRECTORY = "volumes"
"""In the state directory: a directory for each container that has such volumes."""


async def make_volumes(
    parts: Parts, container: Container, image: Image, user: UserNamespace | None
) -> list[api_pb2.Mount]:
    """Create and fill the container's anonymous volumes; return them as mounts.

    The root filesystem must be mounted. A path at which the request has a mount gets no volume.
    ResourceExhausted if less than ``images.min_free_disk`` is free before a volume is filled.
    """
    paths = volume_paths(image, container.config)
    if not paths:
        return []
    top = directory_of(parts, container.id)
    sources = {path: top / str(number) for number, path in enumerate(paths)}
    rootfs = parts.paths.container(container.id).rootfs
    owner = (0, 0) if user is None else user.root
    minimum = parts.config.images.min_free_disk
    what = f"create the volumes of container {container.id}"
    await on_files(what, lambda: _fill(rootfs, sources, owner, minimum))
    return [api_pb2.Mount(container_path=path, host_path=str(source)) for path, source in sources.items()]


async def remove_volumes(parts: Parts, container_id: str) -> None:
    """Remove a container's anonymous volumes. No error if it has none."""
    await parts.host.remove_tree(directory_of(parts, container_id))


def directory_of(parts: Parts, container_id: str) -> Path:
    """Return the directory of a container's anonymous volumes."""
    return parts.config.server.state_dir / DIRECTORY / container_id


def volume_paths(image: Image, config: api_pb2.ContainerConfig) -> list[str]:
    """Return the absolute paths that the image declares as volumes, and that the request does not mount."""
    requested = {_absolute(mount.container_path) for mount in config.mounts}
    declared = {_absolute(check_text(path, "a volume of the image")) for path in image.config.volumes}
    return sorted(declared - requested - {"/"})


def _absolute(path: str) -> str:
    return posixpath.normpath(posixpath.join("/", path))


def _fill(rootfs: Path, sources: Mapping[str, Path], owner: tuple[int, int], minimum: int) -> None:
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, target in sources.items():
            target.mkdir(mode=0o755, parents=True)
            _check_disk(path, target, minimum)
            _fill_one(root, path, target, owner)
    finally:
        os.close(root)


def _check_disk(path: str, target: Path, minimum: int) -> None:
    """An image can declare any number of volumes, one of which contains the next."""
    try:
        check_free_disk(str(target), minimum)
    except ResourceExhausted as error:
        raise ResourceExhausted(f"the image's volume {path!r}: {error}") from error


def _fill_one(root: int, path: str, target: Path, owner: tuple[int, int]) -> None:
    """Copy a directory of the image. A path that the image does not have is an empty volume."""
    try:
        fd = syscalls.find_in_root(root, path)
    except HostError as error:
        if error.errno != errno.ENOENT:
            raise
        os.chown(target, *owner)
        return
    try:
        source = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if not source.is_dir():
            raise InvalidArgument(f"the image's volume {path!r} is not a directory in the image")
        copy_tree(source, target)
    finally:
        os.close(fd)
