"""Pods one by one and many at once: the duration of each call, and the CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from realnode.pods import Kubelet, wait_until
from realnode.traces import remove_cgroups

from bench.figures import Figures
from bench.runtimes import Runtime
from noderuntime.cri.v1 import api_pb2

_IDLE = "trap 'exit 0' TERM; echo ready; sleep 1000000 & wait"
"""The containers' script: idle until SIGTERM. A container that is not ready yet would ignore the signal."""

_START = ("RunPodSandbox", "CreateContainer", "StartContainer")
_END = ("StopContainer", "RemoveContainer", "StopPodSandbox", "RemovePodSandbox")
_SECONDS = 120.0


@dataclass(frozen=True)
class Kind:
    """A kind of pods: their handler, and whether they use the host's network."""

    name: str
    handler: str
    host_network: bool = False

    def config(self, kubelet: Kubelet) -> api_pb2.PodSandboxConfig:
        """Return the config of a new pod."""
        security = api_pb2.LinuxSandboxSecurityContext(namespace_options=self._namespaces())
        config = kubelet.pod_config(linux=api_pb2.LinuxPodSandboxConfig(security_context=security))
        if self.host_network:
            config.ClearField("hostname")
        return config

    def container(self, kubelet: Kubelet, pod: str, config: api_pb2.PodSandboxConfig, script: str) -> str:
        """Create a container in a pod and return its ID."""
        security = api_pb2.LinuxContainerSecurityContext(namespace_options=self._namespaces())
        linux = api_pb2.LinuxContainerConfig(security_context=security)
        return kubelet.create(pod, config, "main", script, linux=linux)

    def _namespaces(self) -> api_pb2.NamespaceOption:
        """Return the namespaces that the kubelet requests for a pod without a shared PID namespace."""
        network = api_pb2.NODE if self.host_network else api_pb2.POD
        return api_pb2.NamespaceOption(network=network, pid=api_pb2.CONTAINER)


BRIDGE = Kind("runc, CNI bridge", "runc")
HOST = Kind("runc, host network", "runc", host_network=True)
CRUN = Kind("crun, CNI bridge", "crun")
GVISOR = Kind("gVisor, CNI bridge", "gvisor")


@dataclass
class Pod:
    """One pod with one container, and the duration of each call in milliseconds."""

    runtime: Runtime
    kind: Kind
    took: dict[str, float] = field(default_factory=dict)
    id: str = ""
    container: str = ""
    log: Path = Path()

    def start(self) -> None:
        """Create and start the pod and its container."""
        kubelet, config = self.runtime.kubelet, self.kind.config(self.runtime.kubelet)
        with self._timed("RunPodSandbox"):
            self.id = kubelet.run(config, self.kind.handler)
        with self._timed("CreateContainer"):
            self.container = self.kind.container(kubelet, self.id, config, _IDLE)
        self.log = Path(config.log_directory) / "main.log"
        with self._timed("StartContainer"):
            kubelet.start(self.container)

    def ready(self) -> None:
        """Wait until the container handles SIGTERM."""
        wait_until(lambda: self.log.stat().st_size > 0, "the container is ready")

    def inspect(self) -> None:
        """Get both statuses and run a command."""
        pod = api_pb2.PodSandboxStatusRequest(pod_sandbox_id=self.id)
        with self._timed("PodSandboxStatus"):
            self.runtime.kubelet.runtime.PodSandboxStatus(pod, timeout=_SECONDS)
        with self._timed("ContainerStatus"):
            self.runtime.kubelet.status(self.container)
        self.exec()

    def exec(self) -> None:
        """Run a program that does nothing with ExecSync."""
        request = api_pb2.ExecSyncRequest(container_id=self.container, cmd=["true"], timeout=20)
        with self._timed("ExecSync"):
            self.runtime.kubelet.runtime.ExecSync(request, timeout=_SECONDS)

    def end(self) -> None:
        """Stop and remove the pod, with the kubelet's calls."""
        runtime, container, pod = self.runtime.kubelet.runtime, self.container, self.id
        with self._timed("StopContainer"):
            request = api_pb2.StopContainerRequest(container_id=container, timeout=30)
            runtime.StopContainer(request, timeout=_SECONDS)
        with self._timed("RemoveContainer"):
            runtime.RemoveContainer(api_pb2.RemoveContainerRequest(container_id=container), timeout=_SECONDS)
        with self._timed("StopPodSandbox"):
            runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=_SECONDS)
        with self._timed("RemovePodSandbox"):
            runtime.RemovePodSandbox(api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=_SECONDS)

    def total(self, calls: Sequence[str]) -> float:
        """Return the total duration of these calls in milliseconds."""
        return sum(self.took[call] for call in calls)

    @contextmanager
    def _timed(self, call: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.took[call] = (time.perf_counter() - began) * 1000


def one_by_one(figures: Figures, runtimes: Sequence[Runtime], kind: Kind, count: int) -> None:
    """Measure pods from their start to their removal, in turns."""
    for runtime in runtimes:
        _live(runtime, kind)  # the first pod fills the caches
    cpu = {runtime.name: -runtime.group.cpu() for runtime in runtimes}
    for turn in range(count):
        for runtime in in_turn(runtimes, turn):
            pod = _live(runtime, kind)
            figures.add(f"pod start, {kind.name}", runtime.name, pod.total(_START))
            figures.add(f"whole pod life, {kind.name}", runtime.name, pod.total((*_START, *_END)))
            figures.add(f"teardown, {kind.name}", runtime.name, pod.total(_END))
            for call, took in pod.took.items():
                figures.add(f"{call}, {kind.name}", runtime.name, took)
            remove_cgroups(runtime.kubelet.parent)
    for runtime in runtimes:
        cpu[runtime.name] += runtime.group.cpu()
        figures.add(f"CPU per pod life, {kind.name}", runtime.name, cpu[runtime.name] / count)


def at_once(figures: Figures, runtimes: Sequence[Runtime], count: int, turns: int) -> None:
    """Measure the start and the removal of count pods at the same time."""
    with ThreadPoolExecutor(count) as pool:
        for turn in range(turns):
            for runtime in in_turn(runtimes, turn):
                pods = [Pod(runtime, BRIDGE) for _ in range(count)]
                figures.add(f"{count} pods at once", runtime.name, _all(pool, Pod.start, pods))
                _all(pool, Pod.ready, pods)
                figures.add(f"{count} pods at once: teardown", runtime.name, _all(pool, Pod.end, pods))
                remove_cgroups(runtime.kubelet.parent)


def in_turn(runtimes: Sequence[Runtime], turn: int) -> Sequence[Runtime]:
    """Return the sides in the order of this turn: each one is first in every other turn."""
    return runtimes if turn % 2 == 0 else runtimes[::-1]


def _live(runtime: Runtime, kind: Kind) -> Pod:
    pod = Pod(runtime, kind)
    pod.start()
    pod.inspect()
    pod.ready()
    pod.end()
    return pod


def _all(pool: ThreadPoolExecutor, step: Callable[[Pod], None], pods: Sequence[Pod]) -> float:
    began = time.perf_counter()
    list(pool.map(step, pods))
    return (time.perf_counter() - began) * 1000
