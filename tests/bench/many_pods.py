"""A node with many pods: the kubelet's periodic calls, memory, and the duration of a restart."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
from realnode.pods import Kubelet

from bench.figures import Figures
from bench.machine import program, proportional, resident
from bench.pod_lifecycle import BRIDGE, Pod, in_turn
from bench.runtimes import Runtime
from noderuntime.cri.v1 import api_pb2, api_pb2_grpc

_IN_CONTAINERS = "busybox"
_MIB = 1 << 20
_RETRY_SECONDS = 0.002
_SECONDS = 60.0

_CALLS: Mapping[str, Callable[[Kubelet], object]] = {
    "Status": lambda kubelet: kubelet.runtime.Status(api_pb2.StatusRequest(), timeout=_SECONDS),
    "ListPodSandbox": lambda kubelet: kubelet.runtime.ListPodSandbox(
        api_pb2.ListPodSandboxRequest(), timeout=_SECONDS
    ),
    "ListContainers": lambda kubelet: kubelet.runtime.ListContainers(
        api_pb2.ListContainersRequest(), timeout=_SECONDS
    ),
    "ListContainerStats": lambda kubelet: kubelet.runtime.ListContainerStats(
        api_pb2.ListContainerStatsRequest(), timeout=_SECONDS
    ),
    "ListPodSandboxStats": lambda kubelet: kubelet.runtime.ListPodSandboxStats(
        api_pb2.ListPodSandboxStatsRequest(), timeout=_SECONDS
    ),
    "ListImages": lambda kubelet: kubelet.images.ListImages(api_pb2.ListImagesRequest(), timeout=_SECONDS),
    "ImageFsInfo": lambda kubelet: kubelet.images.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=_SECONDS),
}
_RELIST, _STATS = ("ListPodSandbox", "ListContainers"), ("ListContainerStats", "ImageFsInfo")
_STATS_EVERY = 10


def grow(runtimes: Sequence[Runtime], count: int) -> None:
    """Start pods until each side has count of them."""
    for runtime in runtimes:
        for _ in range(count - len(runtime.kubelet.pods())):
            Pod(runtime, BRIDGE).start()


def shrink(runtimes: Sequence[Runtime]) -> None:
    """Stop and remove all pods."""
    with ThreadPoolExecutor(8) as pool:
        for runtime in runtimes:
            list(pool.map(runtime.kubelet.stop_and_remove, runtime.kubelet.pods()))


def answers(figures: Figures, runtimes: Sequence[Runtime], pods: int, count: int) -> None:
    """Measure the kubelet's calls that concern the whole node."""
    warm_up = 2
    for turn in range(count + warm_up):
        for name, call in _CALLS.items():
            for runtime in in_turn(runtimes, turn):
                began = time.perf_counter()
                call(runtime.kubelet)
                took = (time.perf_counter() - began) * 1000
                if turn >= warm_up:
                    figures.add(f"{name}, {pods} pods", runtime.name, took)


def memory(figures: Figures, runtimes: Sequence[Runtime], pods: int) -> None:
    """Measure the memory of the daemons and of the helper processes of each pod."""
    for runtime in runtimes:
        daemon = runtime.server.pid
        figures.add(f"daemon RSS, {pods} pods", runtime.name, resident(daemon) / _MIB, "MiB")
        if pods:
            helpers = {pid for pid in runtime.group.pids() if program(pid) != _IN_CONTAINERS} - {daemon}
            held = sum(map(proportional, helpers)) / pods / _MIB
            figures.add(f"helpers' PSS per pod, {pods} pods", runtime.name, held, "MiB")


def polling(figures: Figures, runtimes: Sequence[Runtime], pods: int, seconds: int) -> None:
    """Measure the CPU time while a kubelet polls both sides and no pod changes."""
    before = [runtime.group.cpu() for runtime in runtimes]
    with ThreadPoolExecutor(len(runtimes)) as pool:
        list(pool.map(lambda runtime: _poll(runtime.kubelet, seconds), runtimes))
    for runtime, then in zip(runtimes, before, strict=True):
        used = (runtime.group.cpu() - then) / seconds
        figures.add(f"idle under polling, {pods} pods", runtime.name, used, "ms CPU per s")


def restarts(figures: Figures, runtimes: Sequence[Runtime], pods: int, turns: int) -> None:
    """Measure the time from a stop, and from the start after a kill, until all pods are listed again."""
    for turn in range(turns):
        for runtime in in_turn(runtimes, turn):
            began = time.perf_counter()
            runtime.server.stop()
            figures.add(f"restart without a socket, {pods} pods", runtime.name, _back(runtime, pods, began))
            runtime.server.kill()
            took = _back(runtime, pods, time.perf_counter())
            figures.add(f"start after a kill, {pods} pods", runtime.name, took)


def _poll(kubelet: Kubelet, seconds: int) -> None:
    began = time.monotonic()
    for second in range(seconds):
        for name in (*_RELIST, *(_STATS if second % _STATS_EVERY == 0 else ())):
            _CALLS[name](kubelet)
        time.sleep(max(0.0, began + second + 1 - time.monotonic()))


def _back(runtime: Runtime, pods: int, began: float) -> float:
    """Start the daemon and return the milliseconds since began until it lists its pods."""
    with ThreadPoolExecutor(1) as pool:
        answered = pool.submit(_answered, runtime.server.socket, pods)
        runtime.start()
        return (answered.result() - began) * 1000


def _answered(path: Path, pods: int) -> float:
    """Return the time at which the pods are listed; retry by hand, because gRPC's backoff is too long."""
    while True:
        with suppress(OSError, grpc.RpcError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            with grpc.insecure_channel(f"unix:{path}") as channel:
                runtime = api_pb2_grpc.RuntimeServiceStub(channel)  # type: ignore[no-untyped-call]
                listed = runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=_SECONDS)
                if len(listed.items) == pods:
                    return time.perf_counter()
        time.sleep(_RETRY_SECONDS)
