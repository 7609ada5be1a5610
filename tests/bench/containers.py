"""One container: commands that run in it, and the log that it writes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from realnode.crictl import Crictl

from bench.figures import Figures
from bench.pod_lifecycle import BRIDGE, Pod, in_turn
from bench.runtimes import Runtime
from noderuntime.cri.v1 import api_pb2

_LINE = "a line of the length that lines of logs often have, with a word or two more " + "." * 20
_STREAMED = 64 << 20
_END = "this was the last one"


def execs(figures: Figures, runtimes: Sequence[Runtime], count: int) -> None:
    """Measure ExecSync of a command that does nothing."""
    pods = {runtime.name: Pod(runtime, BRIDGE) for runtime in runtimes}
    for pod in pods.values():
        pod.start()
        pod.exec()
    for turn in range(count):
        for runtime in in_turn(runtimes, turn):
            pod = pods[runtime.name]
            pod.exec()
            figures.add("ExecSync", runtime.name, pod.took["ExecSync"])
    for pod in pods.values():
        pod.end()


def streams(figures: Figures, runtimes: Sequence[Runtime], turns: int) -> None:
    """Measure 64 MiB from, then to, an exec of crictl over the streaming server, as with ``kubectl cp``."""
    pods = {runtime.name: Pod(runtime, BRIDGE) for runtime in runtimes}
    for pod in pods.values():
        pod.start()
    for turn in range(turns):
        for runtime in in_turn(runtimes, turn):
            crictl, container = Crictl(runtime.server.socket), pods[runtime.name].container
            began = time.perf_counter()
            fetched = crictl.run("exec", container, "busybox", "head", "-c", str(_STREAMED), "/dev/zero")
            figures.add("64 MiB from an exec", runtime.name, (time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            sent = crictl.run("exec", "-i", container, "busybox", "wc", "-c", stdin=bytes(_STREAMED))
            figures.add("64 MiB to an exec", runtime.name, (time.perf_counter() - began) * 1000)
            if len(fetched.stdout) != _STREAMED or int(sent.stdout) != _STREAMED:
                raise RuntimeError(f"{runtime.name} lost bytes: {fetched.stderr!r} {sent.stderr!r}")
    for pod in pods.values():
        pod.end()


def logs(figures: Figures, runtimes: Sequence[Runtime], lines: int, turns: int) -> None:
    """Measure a container that writes many log lines; CPU time that is not its own is the log's cost."""
    script = f"busybox yes '{_LINE}' | busybox head -n {lines}; echo {_END}; exec sleep 1000000"
    for turn in range(turns):
        for runtime in in_turn(runtimes, turn):
            kubelet, config = runtime.kubelet, BRIDGE.config(runtime.kubelet)
            pod = kubelet.run(config, BRIDGE.handler)
            container = BRIDGE.container(kubelet, pod, config, script)
            cpu, began = runtime.group.cpu(), time.perf_counter()
            kubelet.start(container)
            _await_end(Path(config.log_directory) / "main.log")
            seconds = time.perf_counter() - began
            cpu = runtime.group.cpu() - cpu - _own_cpu(runtime, container)
            figures.add("log of one container", runtime.name, lines / seconds, "lines/s, more is better")
            figures.add("CPU for a million log lines", runtime.name, cpu / lines * 1e6)
            kubelet.stop_and_remove(pod)


def _await_end(log: Path) -> None:
    wanted = f" {_END}\n".encode()
    with log.open("rb") as file:
        while True:
            size = file.seek(0, 2)
            file.seek(max(0, size - len(wanted)))
            if file.read() == wanted:
                return
            time.sleep(0.002)


def _own_cpu(runtime: Runtime, container: str) -> float:
    request = api_pb2.ContainerStatsRequest(container_id=container)
    stats = runtime.kubelet.runtime.ContainerStats(request, timeout=20).stats
    return int(stats.cpu.usage_core_nano_seconds.value) / 1e6
