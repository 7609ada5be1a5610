"""The cost of a call that passes through to the upstream: the added median time, and the daemon's memory.

``python -m bench.passthrough [CALLS]`` prints one JSON object. Both ways are measured in turns, so
that other load of the machine affects both alike.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from realnode.containerd import Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet

from bench.machine import resident
from noderuntime.cri.v1 import api_pb2


def main() -> None:
    """Measure and print the result."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="noderuntime-bench-")))
        run = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nrbench-", dir="/run")))
        (temporary / "cni").mkdir()
        containerd = Containerd(temporary / "containerd", run / "c", temporary / "cni")
        containerd.start()
        stack.callback(containerd.remove)
        containerd.import_images()
        daemon = Daemon(run / "n", temporary / "noderuntime", containerd)
        daemon.start()
        stack.callback(daemon.remove)
        through = Kubelet(daemon.socket, temporary, "/noderuntime-bench")
        direct = Kubelet(containerd.socket, temporary, "/noderuntime-bench")
        result = {name: _compare(call, direct, through, calls) for name, call in _CALLS.items()}
        print(json.dumps({"calls": calls, "ms": result, "rss_mib": resident(daemon.pid) >> 20}, indent=2))


_CALLS: dict[str, Callable[[Kubelet], object]] = {
    "ImageFsInfo": lambda side: side.images.ImageFsInfo(api_pb2.ImageFsInfoRequest()),
    "ListImages": lambda side: side.images.ListImages(api_pb2.ListImagesRequest()),
    "ListPodSandbox": lambda side: side.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest()),
    "ListContainers": lambda side: side.runtime.ListContainers(api_pb2.ListContainersRequest()),
    "Status": lambda side: side.runtime.Status(api_pb2.StatusRequest()),
}


def _compare(
    call: Callable[[Kubelet], object], direct: Kubelet, through: Kubelet, calls: int
) -> dict[str, float]:
    """Return medians in milliseconds."""
    times: dict[str, list[float]] = {"direct": [], "through": []}
    for turn in range(calls + 20):
        for name, side in (("direct", direct), ("through", through)):
            began = time.perf_counter()
            call(side)
            if turn >= 20:  # the first calls connect and warm up
                times[name].append((time.perf_counter() - began) * 1000)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    return medians | {"added": round(medians["through"] - medians["direct"], 3)}


if __name__ == "__main__":
    main()
