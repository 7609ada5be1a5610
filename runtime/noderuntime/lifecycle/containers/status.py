"""ContainerStatus, from memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from noderuntime.core.blocking import FILES
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.signals import to_cri
from noderuntime.lifecycle.containers.state import reason_of, state_of
from noderuntime.lifecycle.ledger.records import Container
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.spec.resources import oci_resources

_MESSAGE_LIMIT = 4096


async def container_status(
    parts: Parts, container_id: str, *, verbose: bool = False
) -> api_pb2.ContainerStatusResponse:
    """Return a container's status (CRI ContainerStatus); verbose adds PIDs and the OCI spec as JSON.

    The spec has the limits in force.
    """
    container = parts.ledger.containers.get(container_id)
    response = api_pb2.ContainerStatusResponse(status=describe(container))
    if verbose:
        response.info["info"] = json.dumps(await _info(parts, container))
    return response


def describe(container: Container) -> api_pb2.ContainerStatus:
    """Return the CRI status of a container's record."""
    config = container.config
    return api_pb2.ContainerStatus(
        id=container.id,
        metadata=config.metadata,
        state=state_of(container),
        created_at=container.created_at,
        started_at=container.started_at,
        finished_at=container.finished_at,
        exit_code=container.exit_code,
        image=image_spec(container),
        image_ref=container.image_ref,
        image_id=container.image_id,
        reason=reason_of(container),
        message=container.start_error[:_MESSAGE_LIMIT],
        labels=config.labels,
        annotations=config.annotations,
        mounts=_mounts(container),
        log_path=container.log_path,
        resources=api_pb2.ContainerResources(linux=container.resources),
        user=api_pb2.ContainerUser(linux=container.user),
        stop_signal=to_cri(container.stop_signal),
    )


def _mounts(container: Container) -> Iterator[api_pb2.Mount]:
    """Yield the requested mounts. Images are given by ID, as PullImage returned it: a tag can move."""
    images = iter(container.volume_images)
    for requested in container.config.mounts:
        mount = api_pb2.Mount()
        mount.CopyFrom(requested)
        if mount.HasField("image"):
            mount.image.image = mount.image.image_ref = next(images, mount.image.image)
        yield mount


def image_spec(container: Container) -> api_pb2.ImageSpec:
    """Return the requested image, named by a tag or a digest of the repository."""
    spec = api_pb2.ImageSpec()
    spec.CopyFrom(container.config.image)
    spec.image = container.image_name
    return spec


async def _info(parts: Parts, container: Container) -> dict[str, Any]:
    info: dict[str, Any] = {
        "sandboxID": container.sandbox_id,
        "pid": container.process.pid if container.process else 0,
        "monitorPid": container.monitor.pid if container.monitor else 0,
        "bundle": str(parts.paths.container(container.id).bundle),
    }
    try:
        spec = await FILES.run(parts.paths.container(container.id).spec.read_bytes)
        info["runtimeSpec"] = json.loads(spec)
        info["runtimeSpec"]["linux"]["resources"] |= oci_resources(container.resources, parts.facts)
    except (OSError, ValueError):
        pass  # removed meanwhile
    return info
