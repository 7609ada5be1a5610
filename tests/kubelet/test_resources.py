"""Resources: resizing in place, running out of memory and disk, statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from kubelet.kit.pods import SERVE, SLEEP, container, once, pod, variants
from kubelet.kit.settings import kubelet_settings
from kubelet.kit.workloads import Workloads
from kubelet.kit.world import World

from harness.kubectl import Manifest
from harness.run import wait_for

_MIB = 1 << 20
_EATS = "exec tail /dev/zero"
_BUSY = f"""
dd if=/dev/zero of=/written bs=1M count=8 2>/dev/null
kept=$(head -c {20 * _MIB} /dev/zero | tr '\\0' x)
echo busy; while :; do :; done
"""


def _resources(cpu: str, memory: str) -> Manifest:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}


def _limited(name: str, cpu: str, memory: str, script: str = SLEEP, **fields: object) -> Manifest:
    return container(name, script, resources=_resources(cpu, memory), **fields)


def test_running_runc_container_is_resized(world: World, workloads: Workloads) -> None:
    restarts = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    workloads.ready(
        pod(
            "grows",
            _limited("stays", "100m", "64Mi"),
            _limited("restarts", "100m", "64Mi", resizePolicy=restarts),
        )
    )
    before = workloads.container("grows", "stays")
    assert _limits(world, before) == {"memory": 64 * _MIB, "quota": 10_000}
    wanted = [{"name": name, "resources": _resources("250m", "128Mi")} for name in ("stays", "restarts")]
    _resize(workloads, "grows", wanted)
    workloads.restarted("grows", "restarts")
    wait_for("limits in the status", partial(_is_reported, workloads, "grows", "128Mi"), timeout=30)
    after = workloads.container("grows", "stays")
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    for name in ("stays", "restarts"):
        assert _limits(world, workloads.container("grows", name)) == {"memory": 128 * _MIB, "quota": 25_000}
    _resize(workloads, "grows", [{"name": "stays", "resources": _resources("50m", "32Mi")}])
    wait_for("smaller", lambda: _limits(world, after) == {"memory": 32 * _MIB, "quota": 5_000}, timeout=30)
    assert workloads.container("grows", "stays")["restartCount"] == 0


def test_gvisor_pod_is_resized(workloads: Workloads) -> None:
    workloads.ready(pod("grows-gvisor", _limited("main", "100m", "64Mi"), runtime="gvisor"))
    _resize(workloads, "grows-gvisor", [{"name": "main", "resources": _resources("250m", "128Mi")}])
    wait_for("limits in the status", partial(_is_reported, workloads, "grows-gvisor", "128Mi"), timeout=30)
    assert workloads.container("grows-gvisor")["restartCount"] == 0


def _resize(workloads: Workloads, name: str, containers: list[Manifest]) -> None:
    patch = json.dumps({"spec": {"containers": containers}})
    workloads.kubectl("patch", "pod", name, "--subresource=resize", "--patch", patch)


def _is_reported(workloads: Workloads, name: str, memory: str) -> bool:
    status = workloads.kubectl.get("pod", name)["status"]
    reported = {one["resources"]["limits"]["memory"] for one in status["containerStatuses"]}
    return reported == {memory} and not any("PodResize" in one["type"] for one in status["conditions"])


def _limits(world: World, status: dict[str, Any]) -> dict[str, int]:
    """Read memory limit (bytes) and CPU quota (microseconds in 100 ms) from the container's cgroup."""
    identifier = status["containerID"].partition("://")[2]
    files = "-name memory.limit_in_bytes -o -name memory.max -o -name cpu.cfs_quota_us -o -name cpu.max"
    script = f"find /sys/fs/cgroup/ -path '*{identifier}*' \\( {files} \\) -exec grep -H . {{}} +"
    found = re.findall(r"/(memory|cpu)\.[a-z_]+:(\d+)", world.node.exec("sh", "-c", script))
    kinds = {"memory": "memory", "cpu": "quota"}
    return {kinds[kind]: int(number) for kind, number in found}


def test_container_over_its_memory_limit_is_oom_killed(workloads: Workloads) -> None:
    limits = {"resources": {"limits": {"memory": "48Mi"}}}
    for name, runtime in variants("eats").items():
        manifest = once(name, _EATS, runtime)
        manifest["spec"]["containers"][0] |= limits
        workloads.apply(manifest)
    workloads.apply(pod("eats-again", container("main", f"sleep 1; {_EATS}", **limits)))
    for name in variants("eats"):
        ended = workloads.ended(name)
        assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137), name
    again = workloads.restarted("eats-again")
    assert again["lastState"]["terminated"]["reason"] == "OOMKilled"


def test_neighbour_of_an_oom_killed_container_keeps_running(workloads: Workloads) -> None:
    eats = container("eats", _EATS, resources={"limits": {"memory": "32Mi"}})
    lives = container("lives", SLEEP, resources={"limits": {"memory": "32Mi"}})
    workloads.apply(pod("neighbours", eats, lives, restartPolicy="Never"))
    assert workloads.ended("neighbours", "eats")["reason"] == "OOMKilled"
    assert "running" in workloads.container("neighbours", "lives")["state"]


def test_kubelet_summary_reports_usage_of_pods(world: World, workloads: Workloads) -> None:
    names, main = variants("busy"), _limited("main", "200m", "128Mi", _BUSY)
    workloads.ready(*(pod(name, main, runtime=runtime) for name, runtime in names.items()))
    for name in names:
        workloads.logged(name, "busy", timeout=60)
        figures = wait_for(f"figures of {name}", partial(_used, world, name), timeout=60)
        assert 0 < figures["cpu"]["usageNanoCores"] < 10**9
        assert figures["memory"]["workingSetBytes"] < 128 * _MIB
        assert figures["logs"]["usedBytes"] > 0
    metrics = world.cluster.kubectl("get", "--raw", f"/api/v1/nodes/{world.node.name}/proxy/metrics/resource")
    for name in names:
        for metric in ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes"):
            assert re.search(rf'{metric}{{container="main",namespace="default",pod="{name}"}} [1-9]', metrics)


def _used(world: World, name: str) -> Manifest | None:
    """Return a container's figures from the kubelet's summary once they show all of its usage."""
    pod = _summary(world, name)
    figures: Manifest = pod["containers"][0] if pod.get("containers") else {}
    seen = (
        figures.get("cpu", {}).get("usageNanoCores", 0) > 20_000_000
        and figures.get("memory", {}).get("workingSetBytes", 0) > 20 * _MIB
        and figures.get("rootfs", {}).get("usedBytes", 0) > 8 * _MIB
        and figures.get("logs", {}).get("usedBytes", 0) > 0
    )
    return figures if seen else None


def _summary(world: World, name: str) -> Manifest:
    raw = world.cluster.kubectl("get", "--raw", f"/api/v1/nodes/{world.node.name}/proxy/stats/summary")
    pods: list[Manifest] = json.loads(raw)["pods"]
    return next((one for one in pods if one["podRef"]["name"] == name), {})


@pytest.mark.usefixtures("statistics_from_us")
def test_kubelet_summary_reports_network_from_the_runtime(world: World, workloads: Workloads) -> None:
    names, main = variants("sends"), container("main", SERVE)
    workloads.ready(*(pod(name, main, runtime=runtime) for name, runtime in names.items()))
    for name in names:
        ip = workloads.kubectl.get("pod", name)["status"]["podIP"]
        world.node.exec("busybox", "wget", "-qO-", f"http://{ip}/")
        network = wait_for(f"network of {name}", partial(_network, world, name), timeout=30)
        assert network["name"] == "eth0"
        assert network["rxBytes"] > 100
        assert network["txBytes"] > 100


def _network(world: World, name: str) -> Manifest | None:
    return _summary(world, name).get("network")


@pytest.fixture
def statistics_from_us(world: World) -> Iterator[None]:
    """A kubelet that reads all statistics of pods from the runtime instead of cgroups."""
    with kubelet_settings(world.cluster, world.node, featureGates={"PodAndContainerStatsFromCRI": True}):
        yield


def test_pod_over_its_ephemeral_storage_limit_is_evicted(workloads: Workloads) -> None:
    resources = {"limits": {"ephemeral-storage": "4Mi"}}
    writes = container("main", f"dd if=/dev/zero of=/written bs=1M count=12; {SLEEP}", resources=resources)
    names = variants("fills")
    workloads.apply(*(pod(name, writes, runtime=runtime) for name, runtime in names.items()))
    for name in names:
        assert "exceeds" in workloads.event(name, "Evicted", "ephemeral", timeout=90)
