"""CRI's container and pod statistics, for any number of pods in one pass.

One thread reads all cgroups, another one all network namespaces; the event loop waits for both. The cgroup
that has the numbers of a container:

* runc: the container's own.
* gVisor: the containers' processes are threads of the sandbox's process, so only the sandbox's cgroup
  has numbers, which :mod:`noderuntime.lifecycle.stats.shares` divides among the containers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from noderuntime.core.blocking import apart
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.stats import messages
from noderuntime.lifecycle.stats.cgroup_sample import CgroupReader, Sample
from noderuntime.lifecycle.stats.layers import Measured, WritableLayers
from noderuntime.lifecycle.stats.rates import Rates
from noderuntime.lifecycle.stats.shares import Shares
from noderuntime.node.host.cgroup_names import CgroupDriver, container_cgroup, pod_cgroup
from noderuntime.node.host.namespaces import read_in_network_namespaces

_NET_DEV = "/proc/thread-self/net/dev"


@dataclass(frozen=True, slots=True)
class PodTarget:
    """A pod to sample, and the containers to report."""

    sandbox: Sandbox
    containers: Sequence[Container]
    in_sandbox: bool = False
    """Whether the containers run inside the sandbox's process (gVisor)."""
    running: Sequence[str] = ()
    """IDs of all running containers of the pod, reported or not."""


class StatsCollector:
    """Samples pods. Keeps the last samples for rates, and the measurements of writable layers."""

    def __init__(self, reader: CgroupReader, driver: CgroupDriver, layers: WritableLayers) -> None:
        self._reader = reader
        self._driver = driver
        self._layers = layers
        self._rates = Rates()
        self._shares = Shares()

    async def containers(self, pods: Collection[PodTarget]) -> list[api_pb2.ContainerStats]:
        """Return the statistics of the targets' containers (CRI ContainerStats, ListContainerStats)."""
        wanted = [one for pod in pods for one in pod.containers]
        samples, layers = await asyncio.gather(
            self._container_samples(pods), self._layers.of([one.id for one in wanted])
        )
        return [self._container(one, samples.get(one.id), layers.get(one.id)) for one in wanted]

    async def sandboxes(self, pods: Collection[PodTarget]) -> list[api_pb2.PodSandboxStats]:
        """Return the statistics of pods with the targets' containers (CRI PodSandboxStats and its List)."""
        paths = {self._pod_path(pod.sandbox) for pod in pods}
        netns = [Path(pod.sandbox.netns) for pod in pods if pod.sandbox.netns]
        samples, interfaces, containers = await asyncio.gather(
            self._samples(paths), read_in_network_namespaces(netns, _NET_DEV), self.containers(pods)
        )
        by_id = {stats.attributes.id: stats for stats in containers}
        return [
            self._pod(
                pod,
                samples.get(self._pod_path(pod.sandbox)),
                interfaces.get(Path(pod.sandbox.netns)),
                [by_id[one.id] for one in pod.containers],
            )
            for pod in pods
        ]

    async def written(self, container_ids: Collection[str]) -> Mapping[str, Measured]:
        """Return the measurements of containers' writable layers."""
        return await self._layers.of(container_ids)

    async def _container_samples(self, pods: Collection[PodTarget]) -> Mapping[str, Sample]:
        """Return samples of the running containers by their IDs."""
        owners = {
            owner: self._path(pod, owner)
            for pod in pods
            for owner in ([pod.sandbox.id] if pod.in_sandbox else pod.running)
        }
        found = await self._samples(set(owners.values()))
        samples = {one: found[path] for one, path in owners.items() if path in found}
        for pod in pods:
            if pod.in_sandbox and (whole := samples.pop(pod.sandbox.id, None)):
                samples |= self._shares.divide(pod.sandbox.id, whole, pod.running)
        return samples

    async def _samples(self, paths: Collection[str]) -> Mapping[str, Sample]:
        def read() -> dict[str, Sample]:
            return {path: sample for path in paths if (sample := self._reader.read(path)) is not None}

        return (
            await apart(read, what="read cgroups", subject="cgroup statistics", abandon=True) if paths else {}
        )

    def _pod_path(self, sandbox: Sandbox) -> str:
        return pod_cgroup(sandbox.config.linux.cgroup_parent, sandbox.id, self._driver)

    def _path(self, pod: PodTarget, owner: str) -> str:
        return container_cgroup(self._pod_path(pod.sandbox), owner, self._driver)

    def _container(
        self, container: Container, sample: Sample | None, layer: Measured | None
    ) -> api_pb2.ContainerStats:
        config = container.config
        stats = api_pb2.ContainerStats(
            attributes=api_pb2.ContainerAttributes(
                id=container.id,
                metadata=config.metadata,
                labels=config.labels,
                annotations=config.annotations,
            ),
            writable_layer=_written(layer),
        )
        if sample is not None:
            stats.MergeFrom(
                api_pb2.ContainerStats(
                    cpu=messages.cpu(sample, self._rate(container.id, sample)),
                    memory=messages.memory(sample),
                    swap=messages.swap(sample),
                    io=messages.io(sample),
                )
            )
        return stats

    def _pod(
        self,
        pod: PodTarget,
        sample: Sample | None,
        interfaces: bytes | None,
        containers: Sequence[api_pb2.ContainerStats],
    ) -> api_pb2.PodSandboxStats:
        config = pod.sandbox.config
        linux = api_pb2.LinuxPodSandboxStats(containers=containers)
        if sample is not None:
            linux.cpu.CopyFrom(messages.cpu(sample, self._rate(pod.sandbox.id, sample)))
            linux.memory.CopyFrom(messages.memory(sample))
            linux.process.timestamp = sample.timestamp
            if sample.processes is not None:
                linux.process.process_count.value = sample.processes
            if (io := messages.io(sample)) is not None:
                linux.io.CopyFrom(io)
            if interfaces is not None:
                linux.network.CopyFrom(messages.network(sample.timestamp, interfaces))
        attributes = api_pb2.PodSandboxAttributes(
            id=pod.sandbox.id, metadata=config.metadata, labels=config.labels, annotations=config.annotations
        )
        return api_pb2.PodSandboxStats(attributes=attributes, linux=linux)

    def _rate(self, key: str, sample: Sample) -> int | None:
        return None if sample.cpu is None else self._rates.update(key, sample.timestamp, sample.cpu)


def _written(layer: Measured | None) -> api_pb2.FilesystemUsage | None:
    if layer is None:
        return None
    return api_pb2.FilesystemUsage(
        timestamp=layer.timestamp,
        fs_id=api_pb2.FilesystemIdentifier(mountpoint=layer.filesystem),
        used_bytes=messages.value(layer.bytes),
        inodes_used=messages.value(layer.inodes),
    )
