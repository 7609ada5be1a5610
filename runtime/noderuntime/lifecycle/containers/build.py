"""The parts that a container is built from: its OCI spec on disk, image volumes, CDI devices, its log file.

Also the OCI process of an exec, which is based on that spec.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noderuntime.core.blocking import FILES, apart
from noderuntime.core.errors import InvalidArgument, host_error, invalid_argument, os_errors
from noderuntime.core.paths import ContainerPaths
from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import Image
from noderuntime.images.reference import digest_of
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.spec import builder
from noderuntime.node.spec.cdi.edits import apply

_CDI_ANNOTATION = "cdi.k8s.io/"


def write_spec(paths: ContainerPaths, spec: Mapping[str, Any]) -> None:
    """Write the OCI spec into the bundle, readable by root only: the environment contains secrets. Blocks."""
    fd = os.open(paths.spec, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(spec, file)


async def exec_process(
    parts: Parts, container: Container, command: Sequence[str], *, tty: bool = False
) -> dict[str, Any]:
    """Return the OCI process of a command in a container (ExecSync, Exec), based on the container's spec."""
    spec = json.loads(await FILES.run(parts.paths.container(container.id).spec.read_bytes))
    return builder.exec_process(spec, command, tty=tty)


def check_command(command: Sequence[str]) -> None:
    """Raise InvalidArgument if the command is empty."""
    if not command:
        raise InvalidArgument("the command to run is empty")


def image_ref(image: Image, name: str) -> str:
    """Return CRI's image_ref: the digest that was pulled, preferably from the named repository.

    An image without a digest, which was loaded from an archive, has its ID instead.
    """
    return digest_of(image.repo_digests, name) or image.id


async def mount_image_volumes(parts: Parts, container: Container) -> Mapping[int, Path]:
    """Mount the images that a container requests (CRI Mount.image); return mount points by mount index.

    They are read-only and are released with the container's snapshot. NotFound if the node does not have
    an image, or an image does not have the path.
    """
    found: dict[int, Path] = {}
    container.volume_images = ()
    directory = parts.paths.container(container.id).volumes
    for number, mount in enumerate(container.config.mounts):
        if mount.HasField("image"):
            _check_image_volume(mount)
            image = await parts.images.image(mount.image.image)
            target = directory / str(number)
            await FILES.run(lambda path=target: path.mkdir(mode=0o700, parents=True))
            container.volume_images += (image.id,)
            found[number] = await parts.images.volume(container.id, image, target, mount.image_sub_path)
    return found


def _check_image_volume(mount: api_pb2.Mount) -> None:
    if mount.host_path:
        raise InvalidArgument("a mount has a host_path and an image: set only one of them")
    if not mount.readonly:
        raise InvalidArgument("an image volume must be read-only")
    if mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        raise InvalidArgument("an image volume must have private propagation")
    path = mount.image_sub_path
    if posixpath.isabs(path) or ".." in path.split("/"):
        raise InvalidArgument(
            f"image volume's sub-path {path[:80]!r} must be relative and must not contain .."
        )


async def add_cdi_devices(
    parts: Parts, handler: str, spec: dict[str, Any], config: api_pb2.ContainerConfig
) -> None:
    """Add the CDI devices that the request names to a finished OCI spec.

    InvalidArgument for an invalid device name or a handler without CDI devices, NotFound for a device that
    this node does not have, FailedPrecondition if the node lacks something that the device consists of.
    """
    names = cdi_devices(config)
    if not names:
        return
    if not parts.executor(handler).traits.cdi_devices:
        raise InvalidArgument(f"handler {handler} offers no CDI devices")
    await apart(
        lambda: apply(spec, parts.cdi.edits(names)),
        what=f"look up {', '.join(names)[:200]}",
        subject="CDI devices",
    )


def cdi_devices(config: api_pb2.ContainerConfig) -> Sequence[str]:
    """Return the requested CDI devices, each once, in the order of the request.

    Older clients request them by annotations instead of the field.
    """
    names = [device.name for device in config.CDI_devices]
    for key, value in sorted(config.annotations.items()):
        if key.startswith(_CDI_ANNOTATION):
            names += value.split(",")
    return list(dict.fromkeys(names))


async def make_log_directory(directory: str) -> None:
    """Create the log directory that the kubelet chose. InvalidArgument if it cannot be created."""
    with os_errors(f"log directory {directory[:80]!r}", invalid_argument):
        await apart(
            lambda: os.makedirs(directory, mode=0o755, exist_ok=True),
            what=f"create log directory {directory}",
            subject=directory,
        )


async def remove_unused_log(log_path: str) -> None:
    """Remove the empty log of a container that was not created. No error if it is missing.

    The monitor opens the log first, and the kubelet counts each log that it finds as a restart.
    """
    if log_path:
        await apart(
            lambda: _remove_empty(log_path), what=f"remove {log_path}", subject=posixpath.dirname(log_path)
        )


def _remove_empty(path: str) -> None:
    try:
        if os.lstat(path).st_size == 0:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise host_error(f"remove {path}", error) from error
