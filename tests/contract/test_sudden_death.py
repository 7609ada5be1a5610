"""The daemon is killed at many moments of a pod's lifecycle, and so are a pod's processes."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from realnode.containerd import Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.tools import tool
from realnode.traces import remove_cgroups, traces

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["runc", "gvisor"]
MOMENTS = [0.005 * 1.9**step for step in range(9)]
"""Seconds after the first call: dense at first, 0.8 s at the end."""


@pytest.fixture
def kubelet(daemon: Daemon, tmp_path: Path) -> Iterator[Kubelet]:
    """Yield a kubelet whose pods have their own cgroup."""
    client = Kubelet(daemon.socket, tmp_path, f"/noderuntime-death-{uuid.uuid4().hex[:8]}")
    yield client
    client.channel.close()
    remove_cgroups(client.parent)


def whole_life(kubelet: Kubelet, handler: str) -> None:
    """Start and remove a pod, as far as the daemon is alive."""
    with contextlib.suppress(grpc.RpcError):
        config = kubelet.pod_config()
        pod = kubelet.run(config, handler)
        kubelet.run_container(pod, config, "main", "exec sleep 1000")
        kubelet.stop_and_remove(pod)


def snapshots(containerd: Containerd) -> list[str]:
    argv = [tool("ctr"), "-a", containerd.socket, "-n", "k8s.io", "snapshots", "ls"]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout
    return [line for line in listed.splitlines() if line.startswith("noderuntime-")]


def addresses(cni_conf: Path) -> list[str]:
    """Return the addresses that host-local has leased."""
    return [path.name for path in (cni_conf / "ipam").glob("*/[0-9]*")]


@pytest.mark.parametrize("handler", HANDLERS)
def test_daemon_killed_at_any_moment_leaves_nothing(
    kubelet: Kubelet, daemon: Daemon, containerd: Containerd, cni_conf: Path, handler: str
) -> None:
    for moment in MOMENTS:
        with ThreadPoolExecutor(1) as caller:
            life = caller.submit(whole_life, kubelet, handler)
            time.sleep(moment)
            daemon.kill()
            life.result(timeout=60)
        daemon.start()
        wait_until(kubelet.answers, "the channel is connected again")
        for pod in kubelet.pods():
            kubelet.stop_and_remove(pod)

        def left() -> list[str]:
            found = [*traces(daemon.run, kubelet.parent, daemon=daemon.pid), *snapshots(containerd)]
            return found + addresses(cni_conf)

        with contextlib.suppress(AssertionError):  # what was never visible is undone in the background
            wait_until(lambda: left() == [], "nothing is left")
        assert left() == [], f"killed after {moment * 1000:.0f} ms"


def events_of(kubelet: Kubelet) -> queue.SimpleQueue[api_pb2.ContainerEventResponse]:
    """Yield the events of GetContainerEvents from now on."""
    events: queue.SimpleQueue[api_pb2.ContainerEventResponse] = queue.SimpleQueue()
    stream = kubelet.runtime.GetContainerEvents(api_pb2.GetEventsRequest(), timeout=60)

    def receive() -> None:
        with contextlib.suppress(grpc.RpcError):
            for event in stream:
                events.put(event)

    threading.Thread(target=receive, daemon=True).start()
    return events


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # a zombie has none
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("handler", HANDLERS)
def test_container_killed_with_its_monitor_is_lost(kubelet: Kubelet, handler: str) -> None:
    config, events = kubelet.pod_config(), events_of(kubelet)
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    info = kubelet.status_info(container)
    for victim in ("monitorPid", "pid"):
        os.kill(info[victim], signal.SIGKILL)
    wait_until(
        lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end is known", seconds=2
    )
    status = kubelet.status(container)
    assert (status.exit_code, status.reason) == (255, "Unknown")
    ended = (container, api_pb2.CONTAINER_STOPPED_EVENT)  # events of earlier tests can come too
    while (event := events.get(timeout=2)) and (event.container_id, event.container_event_type) != ended:
        pass
    assert kubelet.pod_state(pod) == api_pb2.SANDBOX_READY
    again = kubelet.run_container(pod, config, "again", "exec sleep 1000")
    assert kubelet.status(again).state == api_pb2.CONTAINER_RUNNING
    kubelet.stop_and_remove(pod)


def test_container_of_a_killed_monitor_is_ended(kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    info = kubelet.status_info(container)
    os.kill(info["monitorPid"], signal.SIGKILL)
    wait_until(
        lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end is known", seconds=2
    )
    status = kubelet.status(container)
    assert (status.exit_code, status.reason) == (255, "Unknown")
    wait_until(lambda: not runs(info["pid"]), "its process has ended", seconds=2)
    kubelet.stop_and_remove(pod)


def test_sandbox_killed_with_its_monitor_is_not_ready(daemon: Daemon, kubelet: Kubelet) -> None:
    pod = kubelet.run(kubelet.pod_config(), "gvisor")
    bundle = daemon.run / "containers" / pod
    for victim in ("conmon.pid", "pidfile"):
        os.kill(int((bundle / victim).read_text()), signal.SIGKILL)
    wait_until(lambda: kubelet.pod_state(pod) == api_pb2.SANDBOX_NOTREADY, "its end is known", seconds=2)
    kubelet.stop_and_remove(pod)
