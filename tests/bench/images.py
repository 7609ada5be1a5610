"""``python -m bench.images``: pulls through CRI from a registry on this machine, each into an empty store.

QUICK=1 in the environment runs fewer turns.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from realnode.pods import Kubelet
from registries.real import RealRegistry

from bench import pulled_images
from bench.figures import SIDES, Figures
from bench.runtimes import Runtime, place
from noderuntime.cri.v1 import api_pb2

_SECONDS = 600.0
_WORK = {
    "small image": ["small"],
    "large image, gzip": ["large-gzip"],
    "large image, zstd": ["large-zstd"],
    "image of 100 tiny layers": ["tiny"],
    "ten images at once": pulled_images.many(),
}


def main() -> int:
    """Measure, print and write ``build/bench/images.json``."""
    turns = 2 if os.environ.get("QUICK") else 5
    figures, numbers = Figures(), itertools.count()
    storage, facts = pulled_images.storage()
    with place() as here:
        registry = RealRegistry(here.area, storage, "registry")
        try:
            certs = here.certs(registry.authority)
            for what, repositories in _WORK.items():
                with figures.chapter(f"{what}: {facts[repositories[0]]}"):
                    for turn in range(turns):
                        for side in SIDES if turn % 2 == 0 else reversed(SIDES):
                            runtime = Runtime(side, here, certs, next(numbers))
                            _pull(figures, runtime, what, repositories)
        finally:
            registry.stop()
        print(f"\n{figures.write('images.json', images=facts)}", flush=True)
    return 0


def _pull(figures: Figures, runtime: Runtime, what: str, repositories: Sequence[str]) -> None:
    """Measure a pull into an empty store. The files stay until the end: deleting them would slow the disk."""
    os.sync()
    before, began = runtime.own.cpu(), time.perf_counter()
    with runtime.own.peak() as highest, ThreadPoolExecutor(len(repositories)) as pool:
        list(pool.map(lambda name: _pull_one(runtime.kubelet, name), repositories))
    wall, cpu = (time.perf_counter() - began) * 1000, runtime.own.cpu() - before
    figures.add(f"{what}: wall", runtime.name, wall)
    figures.add(f"{what}: CPU", runtime.name, cpu)
    figures.add(f"{what}: peak RSS", runtime.name, highest[0] / (1 << 20), "MiB")
    runtime.stop()


def _pull_one(kubelet: Kubelet, repository: str) -> None:
    image = api_pb2.ImageSpec(image=f"noderuntime.test/{repository}:1")
    kubelet.images.PullImage(api_pb2.PullImageRequest(image=image), timeout=_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
