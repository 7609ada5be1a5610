"""A filesystem that hangs hurts the pod that uses it, and no other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from realnode.daemon import Daemon
from realnode.hung import hung
from realnode.pods import Kubelet, wait_until

from noderuntime.cri.v1 import api_pb2

LOCALHOST = api_pb2.SecurityProfile.Localhost
PODS = 8
"""More than any lane has threads."""


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A directory below which everything hangs."""
    directory = tmp_path / "hung"
    directory.mkdir()
    with hung(directory):
        yield directory


def container_fields(kind: str, path: str) -> dict[str, Any]:
    """Return fields of a container's configuration that name a path."""
    profile = api_pb2.SecurityProfile(profile_type=LOCALHOST, localhost_ref=path)
    return {
        "mount": {"mounts": [api_pb2.Mount(container_path="/data", host_path=path)]},
        "device": {"devices": [api_pb2.Device(container_path="/dev/x", host_path=path, permissions="rwm")]},
        "seccomp profile": {
            "linux": api_pb2.LinuxContainerConfig(
                security_context=api_pb2.LinuxContainerSecurityContext(seccomp=profile)
            )
        },
    }[kind]


def network_ready(kubelet: Kubelet) -> bool:
    return all(one.status for one in kubelet.node_status().status.conditions)


def assert_node_works(kubelet: Kubelet, container: str) -> None:
    """Do what other pods need, each within seconds."""
    began = time.monotonic()
    assert kubelet.exec(container, "echo alive").stdout == b"alive\n"
    kubelet.update(container, cpu_shares=512)
    assert network_ready(kubelet)
    other = kubelet.pod_config()
    pod = kubelet.run(other, "runc")
    kubelet.run_container(pod, other, "main", "exec sleep 1000")
    kubelet.stop_and_remove(pod)
    assert time.monotonic() - began < 8, "longer than a hung call"


@pytest.mark.parametrize("kind", ["mount", "device", "seccomp profile"])
def test_container_that_names_a_hung_path_hurts_no_other_pod(
    kubelet: Kubelet, daemon: Daemon, volume: Path, kind: str
) -> None:
    healthy = kubelet.pod_config()
    main = kubelet.run_container(kubelet.run(healthy, "runc"), healthy, "main", "exec sleep 1000")
    configs = [kubelet.pod_config() for _ in range(PODS)]
    pods = [kubelet.run(config, "runc") for config in configs]

    def create(number: int) -> grpc.StatusCode:
        fields = container_fields(kind, f"{volume}/{number}")
        try:
            kubelet.create(pods[number], configs[number], "main", "exit 0", **fields)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with ThreadPoolExecutor(PODS) as callers:
        creating = [callers.submit(create, number) for number in range(PODS)]
        time.sleep(1)
        assert not any(one.done() for one in creating)
        assert_node_works(kubelet, main)
        assert {one.result() for one in creating} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    began = time.monotonic()
    assert create(0) == grpc.StatusCode.DEADLINE_EXCEEDED
    for pod in pods:
        kubelet.stop_and_remove(pod)
    assert time.monotonic() - began < 8, "a retry waits for no call that hangs already"
    began = time.monotonic()
    daemon.stop()
    assert time.monotonic() - began < 5
    daemon.start()
    assert kubelet.exec(main, "echo alive").stdout == b"alive\n"


@pytest.mark.parametrize("handler", ["runc", "gvisor"])
def test_pod_whose_log_directory_hangs_is_not_made(kubelet: Kubelet, volume: Path, handler: str) -> None:
    config = kubelet.pod_config(log_directory=f"{volume}/logs")
    with pytest.raises(grpc.RpcError) as failure:
        kubelet.run(config, handler)
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert f"create log directory {volume}/logs did not finish within 10 s" in failure.value.details()


def test_pod_whose_seccomp_profile_hangs_is_not_made(kubelet: Kubelet, volume: Path) -> None:
    profile = api_pb2.SecurityProfile(profile_type=LOCALHOST, localhost_ref=f"{volume}/profile.json")
    security = api_pb2.LinuxSandboxSecurityContext(seccomp=profile)
    config = kubelet.pod_config(linux=api_pb2.LinuxPodSandboxConfig(security_context=security))
    with pytest.raises(grpc.RpcError) as failure:
        kubelet.run(config, "gvisor")
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_checkpoint_to_a_hung_location_fails(kubelet: Kubelet, volume: Path) -> None:
    config = kubelet.pod_config()
    main = kubelet.run_container(kubelet.run(config, "runc"), config, "main", "exec sleep 1000")
    request = api_pb2.CheckpointContainerRequest(container_id=main, location=f"{volume}/checkpoints/c.tar")
    with pytest.raises(grpc.RpcError) as failure:
        kubelet.runtime.CheckpointContainer(request, timeout=60)
    assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def state(task: str | int) -> str:
    """Return the state of a process or thread: one letter, as in proc_pid_stat(5)."""
    return Path(f"/proc/{task}/stat").read_text().rpartition(") ")[2][0]


def hanging_lookup(directory: Path) -> None:
    """Start a lookup in a hung directory; return when it hangs. It ends with the filesystem."""
    thread = threading.Thread(target=os.path.lexists, args=(directory / "other",))
    thread.start()
    wait_until(lambda: state(f"self/task/{thread.native_id}") == "D", "the lookup hangs")


def test_pod_whose_log_hangs_stops(kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    kubelet.run_container(pod, config, "main", "exec sleep 1000")
    with hung(Path(config.log_directory)):
        kubelet.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=60)
        assert kubelet.pod_state(pod) == api_pb2.SANDBOX_NOTREADY
    kubelet.stop_and_remove(pod)


def test_monitor_that_hangs_in_a_reopened_log_is_named(kubelet: Kubelet) -> None:
    """A lookup holds the directory's lock, so the monitor's open(2) ignores even SIGKILL."""
    healthy, config = kubelet.pod_config(), kubelet.pod_config()
    main = kubelet.run_container(kubelet.run(healthy, "runc"), healthy, "main", "exec sleep 1000")
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    monitor = kubelet.status_info(container)["monitorPid"]
    with hung(Path(config.log_directory)), ThreadPoolExecutor(1) as caller:
        hanging_lookup(Path(config.log_directory))
        request = api_pb2.ReopenContainerLogRequest(container_id=container)
        reopening = caller.submit(kubelet.runtime.ReopenContainerLog, request, timeout=60)
        wait_until(lambda: state(monitor) == "D", "the monitor hangs")
        assert_node_works(kubelet, main)
        with pytest.raises(grpc.RpcError) as failure:
            reopening.result()
        assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.RpcError) as failure:
            kubelet.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=60)
        assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert f"monitor {monitor} did not end 30 s after SIGKILL" in failure.value.details()
        assert f"process {monitor} is in state D" in failure.value.details()
        assert_node_works(kubelet, main)
    kubelet.stop_and_remove(pod)
