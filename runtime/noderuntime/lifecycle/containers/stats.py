"""ContainerStats and ListContainerStats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.containers.list import select_containers
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.parts import Parts
from noderuntime.lifecycle.stats.collect import PodTarget


async def container_stats(parts: Parts, container_id: str) -> api_pb2.ContainerStats:
    """Return one container's usage (CRI ContainerStats): without a process, its writable layer only."""
    container = parts.ledger.containers.get(container_id)
    [stats] = await parts.stats.containers(_by_pod(parts, [container]))
    return stats


async def list_container_stats(
    parts: Parts, wanted: api_pb2.ContainerStatsFilter
) -> list[api_pb2.ContainerStats]:
    """Return the usage of the running containers that pass all filters (CRI ListContainerStats)."""
    running = api_pb2.ContainerFilter(
        id=wanted.id,
        pod_sandbox_id=wanted.pod_sandbox_id,
        label_selector=wanted.label_selector,
        state=api_pb2.ContainerStateValue(state=api_pb2.CONTAINER_RUNNING),
    )
    return await parts.stats.containers(_by_pod(parts, select_containers(parts, running)))


def pod_target(parts: Parts, sandbox: Sandbox, containers: Sequence[Container]) -> PodTarget:
    """Return what the statistics collector must measure of a pod."""
    executor = parts.executors.get(sandbox.handler)
    return PodTarget(
        sandbox,
        containers,
        in_sandbox=executor is not None and executor.traits.root_container,
        running=[one.id for one in parts.ledger.containers.of(sandbox.id) if one.running],
    )


def _by_pod(parts: Parts, containers: Iterable[Container]) -> list[PodTarget]:
    pods: dict[str, list[Container]] = {}
    for container in containers:
        pods.setdefault(container.sandbox_id, []).append(container)
    return [
        pod_target(parts, sandbox, members)
        for sandbox_id, members in pods.items()
        if (sandbox := parts.ledger.sandboxes.find(sandbox_id)) is not None
    ]
