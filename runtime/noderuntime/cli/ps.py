"""``noderuntime ps``: the node's containers, ours and those of its own runtime."""

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
    """List containers, the newest first; without ``-a`` those that run."""
    parser = options.parser("ps", __doc__)
    options.add_output(parser)
    parser.add_argument("-a", "--all", action="store_true", help="also those that do not run")
    parser.add_argument("--pod", default="", metavar="ID", help="only those of this pod; the ID may be cut")
    chosen = parser.parse_args(arguments)
    containers, pods = options.ask(chosen.socket, _listed)
    shown = [
        one
        for one in sorted(containers, key=lambda one: one.created_at, reverse=True)
        if (chosen.all or one.state == cri.CONTAINER_RUNNING) and one.pod_sandbox_id.startswith(chosen.pod)
    ]
    if chosen.output == "json":
        sys.stdout.write(options.as_json(cri.ListContainersResponse(containers=shown)))
    else:
        sys.stdout.write(text.table(_HEAD, _rows(shown, pods)))
    return 0


async def _listed(client: CriClient) -> tuple[list[cri.Container], _Pods]:
    containers, pods = await asyncio.gather(client.containers(), client.sandboxes())
    return containers, {pod.id: pod.metadata for pod in pods}


def _rows(containers: Iterable[cri.Container], pods: _Pods) -> Iterable[Sequence[str]]:
    now = time.time_ns()
    for one in containers:
        pod = pods.get(one.pod_sandbox_id, cri.PodSandboxMetadata())
        yield (
            text.short_id(one.id),
            pod.namespace,
            pod.name,
            one.metadata.name,
            str(one.metadata.attempt),
            _STATES.get(one.state, str(one.state)),
            text.age(one.created_at, now),
            one.image.user_specified_image or one.image.image,
            text.short_id(one.pod_sandbox_id),
        )
