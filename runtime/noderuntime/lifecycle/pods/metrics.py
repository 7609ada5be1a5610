"""ListPodSandboxMetrics: metrics of pods and their containers for monitoring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.pod import cgroup_of
from noderuntime.lifecycle.containers.stats import pod_target
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.pods.list import select_pod_sandboxes
from noderuntime.lifecycle.stats.metrics.container import Target, observe, recorded, share_values
from noderuntime.lifecycle.stats.metrics.interface_values import interfaces
from noderuntime.lifecycle.stats.metrics.values import LabelKeys, Value, metrics
from noderuntime.node.host.cgroup_names import container_cgroup
from noderuntime.node.host.namespaces import read_in_network_namespaces

_NET_DEV = "/proc/thread-self/net/dev"


async def list_pod_sandbox_metrics(parts: Parts, order: LabelKeys) -> list[api_pb2.PodSandboxMetrics]:
    """Return the metrics of ready pods and their running containers (CRI ListPodSandboxMetrics).

    ``order`` is the order of labels that a client expects of metrics that the upstream described.
    """
    ready = api_pb2.PodSandboxFilter(state=api_pb2.PodSandboxStateValue(state=api_pb2.SANDBOX_READY))
    sandboxes = select_pod_sandboxes(parts, ready)
    running = {
        sandbox.id: [one for one in parts.ledger.containers.of(sandbox.id) if one.running]
        for sandbox in sandboxes
    }
    traffic, containers = await asyncio.gather(
        read_in_network_namespaces([Path(one.netns) for one in sandboxes if one.netns], _NET_DEV),
        _containers(parts, sandboxes, running),
    )
    return [
        api_pb2.PodSandboxMetrics(
            pod_sandbox_id=sandbox.id,
            metrics=metrics(
                interfaces(traffic.get(Path(sandbox.netns), b"")),
                _labels(sandbox, None),
                time.time_ns(),
                order,
            ),
            container_metrics=[
                api_pb2.ContainerMetrics(
                    container_id=one.id,
                    metrics=metrics(containers.get(one.id, ()), _labels(sandbox, one), time.time_ns(), order),
                )
                for one in running[sandbox.id]
            ],
        )
        for sandbox in sandboxes
    ]


async def _containers(
    parts: Parts, sandboxes: Sequence[Sandbox], running: Mapping[str, Sequence[Container]]
) -> dict[str, list[Value]]:
    """Return the metrics of containers by ID. Containers of one cgroup get a share of its usage."""
    targets: list[Target] = []
    shared = []
    for sandbox in sandboxes:
        target = pod_target(parts, sandbox, running[sandbox.id])
        if target.in_sandbox:
            shared.append(target)
        for one in running[sandbox.id]:
            group = container_cgroup(cgroup_of(parts, sandbox), one.id, parts.cgroup_driver)
            targets.append(
                Target(one, parts.paths.container(one.id).rootfs, None if target.in_sandbox else group)
            )
    version = parts.host.cgroup_version()
    observed, shares, written = await asyncio.gather(
        apart(
            lambda: {one.container.id: observe(version, one) for one in targets},
            what="read metrics of containers",
            abandon=True,
        ),
        parts.stats.containers(shared),
        parts.stats.written([one.container.id for one in targets]),
    )
    for stats in shares:
        observed[stats.attributes.id] += share_values(stats)
    return {
        one.container.id: [
            *recorded(one.container, written.get(one.container.id)),
            *observed[one.container.id],
        ]
        for one in targets
    }


def _labels(sandbox: Sandbox, container: Container | None) -> dict[str, str]:
    pod = sandbox.config.metadata
    labels = {"pod": pod.name, "namespace": pod.namespace, "container": "", "id": sandbox.id, "image": ""}
    if container is not None:
        image = container.config.image.user_specified_image or container.image_name
        labels |= {"container": container.config.metadata.name, "id": container.id, "image": image}
    return labels
