"""``python -m bench.cri``: pods through CRI, on both sides in turns.

QUICK=1 in the environment runs fewer turns with fewer pods, in less than five minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from realnode.containerd import IMAGE
from registries.real import RealRegistry

from bench import containers, many_pods, pod_lifecycle
from bench.figures import Figures
from bench.pushing import PAUSE, push_for_pods
from bench.runtimes import Runtime, both, place
from noderuntime.cri.v1 import api_pb2


@dataclass(frozen=True)
class Size:
    """The numbers of turns, pods and calls of a run."""

    pods: int = 40
    gvisor_pods: int = 15
    at_once: tuple[tuple[int, int], ...] = ((10, 10), (30, 5))
    """Pairs of pods and turns."""
    execs: int = 200
    streams: int = 10
    log_lines: int = 1_000_000
    log_turns: int = 5
    pods_at_rest: tuple[int, ...] = (0, 50, 110)
    answers: int = 100
    polling_seconds: int = 120
    polled: int = 50
    restarts: int = 5
    recovered: int = 100


_QUICK = Size(
    pods=15,
    gvisor_pods=4,
    at_once=((10, 3), (30, 1)),
    execs=30,
    streams=3,
    log_lines=200_000,
    log_turns=2,
    pods_at_rest=(0, 50),
    answers=20,
    polling_seconds=20,
    restarts=2,
    recovered=50,
)


def main() -> int:
    """Measure, print and write ``build/bench/cri.json``."""
    size = _QUICK if os.environ.get("QUICK") else Size()
    figures = Figures()
    with place() as here:
        registry = RealRegistry(here.area, here.area / "registry", "registry")
        try:
            push_for_pods(registry)
            with both(here, here.certs(registry.authority)) as runtimes:
                for runtime in runtimes:
                    _pull(runtime)
                _few(figures, runtimes, size)
                _many(figures, runtimes, size)
        finally:
            registry.stop()
    print(f"\n{figures.write('cri.json')}", flush=True)
    return 0


def _few(figures: Figures, runtimes: Sequence[Runtime], size: Size) -> None:
    for kind, count in (
        (pod_lifecycle.BRIDGE, size.pods),
        (pod_lifecycle.HOST, size.pods),
        (pod_lifecycle.CRUN, size.pods),
        (pod_lifecycle.GVISOR, size.gvisor_pods),
    ):
        with figures.chapter(f"Pods one by one: {kind.name}"):
            pod_lifecycle.one_by_one(figures, runtimes, kind, count)
    for count, turns in size.at_once:
        with figures.chapter(f"{count} pods at once"):
            pod_lifecycle.at_once(figures, runtimes, count, turns)
    with figures.chapter("In a container"):
        containers.execs(figures, runtimes, size.execs)
        containers.streams(figures, runtimes, size.streams)
        containers.logs(figures, runtimes, size.log_lines, size.log_turns)


def _many(figures: Figures, runtimes: Sequence[Runtime], size: Size) -> None:
    for pods in sorted({*size.pods_at_rest, size.polled, size.recovered}):
        with figures.chapter(f"A node with {pods} pods"):
            many_pods.grow(runtimes, pods)
            if pods in size.pods_at_rest:
                many_pods.memory(figures, runtimes, pods)
                many_pods.answers(figures, runtimes, pods, size.answers)
            if pods == size.polled:
                many_pods.polling(figures, runtimes, pods, size.polling_seconds)
            if pods in (0, size.recovered):
                many_pods.restarts(figures, runtimes, pods, size.restarts)
    many_pods.shrink(runtimes)


def _pull(runtime: Runtime) -> None:
    for name in (IMAGE, PAUSE):
        request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name))
        runtime.kubelet.images.PullImage(request, timeout=60)


if __name__ == "__main__":
    sys.exit(main())
