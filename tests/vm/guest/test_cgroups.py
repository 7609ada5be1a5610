"""Cgroups and limits of pods, as systemd and the kernel report them."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from realnode.pods import Kubelet, wait_until
from realnode.scripts import linux, said_by

from noderuntime.cri.v1 import api_pb2
from vm.guest.node import CGROUPS, UNIT, Service, SystemdKubelet, systemctl

HANDLERS = ["runc", "crun", "gvisor"]
MIB = 1 << 20
BUSY = "dd if=/dev/zero of=/dev/shm/kept bs=1M count=16; echo busy >/dev/stderr; while :; do :; done"


def limited(**limits: object) -> api_pb2.LinuxContainerConfig:
    """Return a container's Linux config with these limits."""
    return api_pb2.LinuxContainerConfig(resources=api_pb2.LinuxContainerResources(**limits))  # type: ignore[arg-type]


def scope(config: api_pb2.PodSandboxConfig, identifier: str) -> Path:
    """Return the cgroup of a container, a scope in its pod's slice."""
    return CGROUPS / config.linux.cgroup_parent[1:] / f"noderuntime-{identifier}.scope"


def values(group: Path, *names: str) -> list[str]:
    """Return the contents of a cgroup's files."""
    return [(group / name).read_text().strip() for name in names]


def test_daemon_reports_the_cgroup_driver_and_runcs_features(kubelet: Kubelet) -> None:
    config = kubelet.runtime.RuntimeConfig(api_pb2.RuntimeConfigRequest())
    assert config.linux.cgroup_driver == api_pb2.SYSTEMD
    status = kubelet.node_status()
    assert all(one.status for one in status.status.conditions), status
    features = {one.name: one.features for one in status.runtime_handlers}
    assert features["runc"].user_namespaces
    assert features["runc"].recursive_read_only_mounts


def test_doctor_reports_no_problem() -> None:
    done = subprocess.run(["noderuntime", "doctor"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "version 2" in done.stdout


@pytest.mark.parametrize("handler", HANDLERS)
def test_pod_is_in_its_slice_and_daemon_alone_in_its_service(
    kubelet: SystemdKubelet, daemon: Service, handler: str
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    group = scope(config, pod if handler == "gvisor" else container)
    assert values(group, "cgroup.procs")[0]
    reported = systemctl("show", "--property=ControlGroup,Slice,ActiveState", group.name)
    assert sorted(reported.split()) == [
        "ActiveState=active",
        f"ControlGroup=/{group.relative_to(CGROUPS)}",
        f"Slice={group.parent.name}",
    ]
    assert values(group.parent / "noderuntime-monitor", "cgroup.procs")[0]
    service = (CGROUPS / "system.slice" / UNIT / "cgroup.procs").read_text().split()
    others = [Path(f"/proc/{pid}/cmdline").read_text() for pid in service if pid != str(daemon.pid)]
    assert len(others) == 1
    assert "noderuntime.node.layers.template" in others[0], "the process that layer workers are forked from"


def test_container_gets_no_swap_after_a_daemon_reload(kubelet: SystemdKubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(
        pod, config, "main", "exec sleep 1000", linux=limited(memory_limit_in_bytes=64 * MIB)
    )
    assert values(scope(config, container), "memory.swap.max") == ["0"]
    systemctl("daemon-reload")
    assert values(scope(config, container), "memory.swap.max") == ["0"]


def test_limits_are_set_in_kernel_and_systemd(kubelet: SystemdKubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    wanted = limited(
        memory_limit_in_bytes=64 * MIB,
        memory_swap_limit_in_bytes=80 * MIB,
        cpu_shares=1024,
        cpu_period=50_000,
        cpu_quota=25_000,
        cpuset_cpus="1",
        unified={"pids.max": "40", "memory.high": str(48 * MIB)},
    )
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000", linux=wanted)
    group = scope(config, container)
    names = ("memory.max", "memory.swap.max", "memory.high", "cpu.max", "cpuset.cpus", "pids.max")
    before = [str(64 * MIB), str(16 * MIB), str(48 * MIB), "25000 50000", "1", "40"]
    assert values(group, *names) == before
    systemctl("daemon-reload")
    assert values(group, *names) == before
    assert kubelet.exec(container, "cat /proc/self/cgroup").stdout == b"0::/\n"
    assert kubelet.exec(container, "cat /sys/fs/cgroup/memory.max").stdout.decode().strip() == before[0]
    assert kubelet.exec(container, "echo max >/sys/fs/cgroup/memory.max").exit_code != 0

    weight = int(values(group, "cpu.weight")[0])
    kubelet.update(
        container,
        memory_limit_in_bytes=96 * MIB,
        memory_swap_limit_in_bytes=96 * MIB,
        cpu_quota=50_000,
        cpu_shares=2048,
        unified={"pids.max": "30", "memory.high": "max"},
    )
    after = [str(96 * MIB), "0", "max", "50000 50000", "1", "30"]
    assert values(group, *names) == after
    assert int(values(group, "cpu.weight")[0]) > weight
    systemctl("daemon-reload")
    assert values(group, *names) == after
    reported = kubelet.status(container).resources.linux
    assert (reported.memory_limit_in_bytes, reported.unified["pids.max"]) == (96 * MIB, "30")


@pytest.mark.parametrize("limiting", ["container", "pod"])
@pytest.mark.parametrize("handler", HANDLERS)
def test_container_over_its_memory_limit_is_oom_killed(
    kubelet: SystemdKubelet, handler: str, limiting: str
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    wanted = limited(memory_limit_in_bytes=64 * MIB) if limiting == "container" else limited()
    systemctl("set-property", "--runtime", kubelet.slices[-1], f"MemoryMax={64 * MIB}", "MemorySwapMax=0")
    container = kubelet.run_container(pod, config, "eats", "exec tail /dev/zero", linux=wanted)
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "the container ends", 60)
    ended = kubelet.status(container)
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


def test_oom_kill_is_reported_after_its_cgroup_is_gone(kubelet: SystemdKubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    script = "until test -e /dev/shm/go; do sleep 0.1; done; exec tail /dev/zero"
    container = kubelet.run_container(
        pod, config, "eats", script, linux=limited(memory_limit_in_bytes=32 * MIB)
    )
    group = scope(config, container)
    pids = (group.parent / "noderuntime-monitor/cgroup.procs").read_text().split()
    for pid in pids:
        os.kill(int(pid), signal.SIGSTOP)
    try:
        assert kubelet.exec(container, ">/dev/shm/go").exit_code == 0
        wait_until(lambda: not group.exists(), "the scope and its counters are gone")
    finally:
        for pid in pids:
            os.kill(int(pid), signal.SIGCONT)
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "the container ends")
    assert (kubelet.status(container).exit_code, kubelet.status(container).reason) == (137, "OOMKilled")


@pytest.mark.parametrize("handler", HANDLERS)
def test_stats_report_a_pods_usage(kubelet: SystemdKubelet, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(
        pod, config, "main", BUSY, linux=limited(memory_limit_in_bytes=256 * MIB)
    )
    wait_until(lambda: "busy" in kubelet.log(config, "main"), "the container is busy", 60)
    request = api_pb2.ContainerStatsRequest(container_id=container)
    inner = kubelet.runtime.ContainerStats(request).stats
    of_pod = kubelet.runtime.PodSandboxStats(api_pb2.PodSandboxStatsRequest(pod_sandbox_id=pod)).stats.linux
    for one in (inner, of_pod):
        assert one.memory.working_set_bytes.value > 16 * MIB
        assert one.memory.rss_bytes.value > 0
        assert one.cpu.usage_core_nano_seconds.value > 0
        for resource in (one.cpu, one.memory, one.io):
            assert resource.HasField("psi")
    assert of_pod.process.process_count.value > 0
    if handler != "gvisor":
        assert 200 * MIB < inner.memory.available_bytes.value < 256 * MIB


def test_pod_without_a_kubelet_leaves_no_slice(kubelet: SystemdKubelet) -> None:
    for handler in HANDLERS:
        config = kubelet.pod_config()
        config.linux.cgroup_parent = ""
        pod = kubelet.run(config, handler)
        kubelet.run_container(pod, config, "main", "exec sleep 1000")
        kubelet.stop_and_remove(pod)


@pytest.mark.parametrize("handler", HANDLERS)
def test_stopped_pods_slice_can_be_removed(kubelet: SystemdKubelet, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    kubelet.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod))
    systemctl("stop", kubelet.slices[-1])
    wait_until(lambda: not scope(config, container).parent.exists(), "the slice is removed")
    kubelet.stop_and_remove(pod)


def test_apparmor_confines_containers_by_default(kubelet: SystemdKubelet) -> None:
    script = "cat /proc/self/attr/current; mkdir /m; mount -t tmpfs none /m && echo mounted"
    wanted = linux(capabilities=api_pb2.Capability(add_capabilities=["SYS_ADMIN"]))
    assert said_by(kubelet, "runc", f"({script}) 2>/dev/null; true", linux=wanted) == [
        "noderuntime-default (enforce)"
    ]
    wanted.security_context.apparmor.profile_type = api_pb2.SecurityProfile.Unconfined
    assert said_by(kubelet, "runc", script, linux=wanted) == ["unconfined", "mounted"]
