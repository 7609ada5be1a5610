"""CDI devices of a container: by the field of the request, and by annotations, as older clients ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from noderuntime.core.blocking import FILES
from noderuntime.core.errors import InvalidArgument
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.parts import Parts
from noderuntime.node.spec.cdi.edits import apply

_ANNOTATION = "cdi.k8s.io/"


async def add_cdi_devices(
    parts: Parts, handler: str, spec: dict[str, Any], config: api_pb2.ContainerConfig
) -> None:
    """Change a finished OCI spec so that the container gets the CDI devices that it asks for.

    InvalidArgument for what is no such device or where the handler has none, NotFound for one that this
    node does not have, FailedPrecondition when the node lacks what the device is made of.
    """
    names = cdi_devices(config)
    if not names:
        return
    if parts.config.handlers[handler].type == "gvisor":
        raise InvalidArgument(f"handler {handler} offers no CDI devices")
    await FILES.run(lambda: apply(spec, parts.cdi.edits(names)))


def cdi_devices(config: api_pb2.ContainerConfig) -> Sequence[str]:
    """Return the devices' names, each once, in the order of the request."""
    names = [device.name for device in config.CDI_devices]
    for key, value in sorted(config.annotations.items()):
        if key.startswith(_ANNOTATION):
            names += value.split(",")
    return list(dict.fromkeys(names))
