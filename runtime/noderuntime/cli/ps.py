"""``noderuntime ps``: List the node's containers, including those of the upstream runtime."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from noderuntime.cli import options, text
from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.criclient import CriClient

_HEAD = ("CONTAINER ID", "NAMESPACE", "POD", "NAME", "ATTEMPT", "STATE", "AGE", "IMAGE", "POD ID")
_STATES = {
    cri.CONTAINER_CREATED: "Created",
    cri.CONTAINER_RUNNING: "Running",
    cri.CONTAINER_EXITED: "Exited",
    cri.CONTAINER_UNKNOWN: "Unknown",
}
_Pods = Mapping[str, cri.PodSandboxMetadata]


def run(arguments: Sequence[str]) -> int:
    """Print the containers, newest first. Without ``-a``, print only running ones."""
    parser = options.parser("ps", __doc__)
    options.add_output(parser)
    parser.add_argument("-a", "--all", action="store_true", help="include containers that are not running")
    parser.add_argument(
        "--pod", default="", metavar="ID", help="list only containers of this pod (ID or prefix)"
    )
    args = parser.parse_args(arguments)
    containers, pods = options.call(args.socket, _list)
    shown = [
        container
        for container in sorted(containers, key=lambda container: container.created_at, reverse=True)
        if (args.all or container.state == cri.CONTAINER_RUNNING)
        and container.pod_sandbox_id.startswith(args.pod)
    ]
    if args.output == "json":
        sys.stdout.write(options.as_json(cri.ListContainersResponse(containers=shown)))
    else:
        sys.stdout.write(text.table(_HEAD, _rows(shown, pods)))
    return 0


async def _list(client: CriClient) -> tuple[list[cri.Container], _Pods]:
    containers, pods = await asyncio.gather(client.containers(), client.sandboxes())
    return containers, {pod.id: pod.metadata for pod in pods}


def _rows(containers: Iterable[cri.Container], pods: _Pods) -> Iterable[Sequence[str]]:
    now = time.time_ns()
    for container in containers:
        pod = pods.get(container.pod_sandbox_id, cri.PodSandboxMetadata())
        yield (
            text.short_id(container.id),
            pod.namespace,
            pod.name,
            container.metadata.name,
            str(container.metadata.attempt),
            _STATES.get(container.state, str(container.state)),
            text.age(container.created_at, now),
            container.image.user_specified_image or container.image.image,
            text.short_id(container.pod_sandbox_id),
        )
