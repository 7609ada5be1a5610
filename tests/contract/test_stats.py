"""Statistics from real cgroups and namespaces. Cgroups, processes and pins are removed afterwards."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from realnode.pods import Kubelet, wait_until
from realnode.traces import remove_cgroups, traces

from noderuntime.core.ids import new_id
from noderuntime.cri.v1 import api_pb2, api_pb2_grpc
from noderuntime.images.base import SnapshotUsage
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.stats.cgroup_sample import CgroupReader
from noderuntime.lifecycle.stats.collect import PodTarget, StatsCollector
from noderuntime.lifecycle.stats.layers import WritableLayers
from noderuntime.node.host.linux import LinuxHost

PARENT = f"/noderuntime-test-{os.getpid()}"


@pytest.fixture
async def host():
    host = LinuxHost()
    yield host
    await host.remove_cgroup(PARENT)
    assert not list(Path("/sys/fs/cgroup").glob(f"*{PARENT}")), "a cgroup is left"


@pytest.fixture
async def collector(host):
    async def usage(_key):
        return SnapshotUsage(1, 1)

    async def filesystem():
        return "/"

    layers = WritableLayers(usage, filesystem)
    yield StatsCollector(CgroupReader(host.cgroup_version()), "cgroupfs", layers)
    await layers.close()


@pytest.fixture
def spawn():
    """Starts processes that are killed when the test ends."""
    started = []

    def start(*argv):
        started.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL))
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.wait()


def pod(parent, netns=""):
    config = api_pb2.PodSandboxConfig()
    config.linux.cgroup_parent = parent
    sandbox = Sandbox(id=new_id(), handler="runc", config=config, created_at=1, ready_at=1, netns=netns)
    container = Container(
        id=new_id(),
        sandbox_id=sandbox.id,
        config=api_pb2.ContainerConfig(),
        created_at=1,
        prepared_at=1,
        started_at=1,
    )
    return PodTarget(sandbox, [container], running=[container.id])


_BUSY = f"""
while not all({PARENT!r} in line for line in open("/proc/self/cgroup")):
    pass
x = bytearray(20_000_000)
while True:
    pass
"""


async def test_a_busy_process_counts_for_container_and_pod(host, collector, spawn, tmp_path):
    netns = tmp_path / "netns"
    await host.pin_namespaces({"net": netns})
    try:
        target = pod(f"{PARENT}/pod", str(netns))
        [container] = target.containers
        pid = spawn("python3", "-c", _BUSY)  # what it takes before it has joined is somebody else's
        await host.join_cgroup(f"{PARENT}/pod/{container.id}", pid)
        await collector.sandboxes([target])
        begin, taken = time.monotonic(), 0
        while taken < 10_500_000:
            [stats] = await collector.sandboxes([target])
            [inner] = stats.linux.containers
            taken = min(one.memory.rss_bytes.value for one in (stats.linux, inner))
            assert time.monotonic() - begin < 20
        for one in (stats.linux, inner):
            assert one.cpu.usage_core_nano_seconds.value > 0
            assert one.memory.working_set_bytes.value > 10_000_000
            assert one.memory.rss_bytes.value > 10_000_000
        assert stats.linux.process.process_count.value == 1
        assert stats.linux.network.timestamp > 0
        while not inner.cpu.HasField("usage_nano_cores"):
            assert time.monotonic() - begin < 20
            [inner] = await collector.containers([target])
        assert 0 < inner.cpu.usage_nano_cores.value <= 1_100_000_000
    finally:
        await host.unpin_namespaces([netns])


async def test_statistics_of_fifty_pods(host, collector, spawn, capsys, tmp_path):
    """The time is printed, not asserted: the machine is shared."""
    pins = [tmp_path / str(number) for number in range(50)]
    targets = [pod(f"{PARENT}/pod{number}", str(pin)) for number, pin in enumerate(pins)]
    try:
        for pin, target in zip(pins, targets, strict=True):
            await host.pin_namespaces({"net": pin})
            path = f"{target.sandbox.config.linux.cgroup_parent}/{target.containers[0].id}"
            await host.join_cgroup(path, spawn("sleep", "1000"))
        times = {}
        for name, look in (("containers", collector.containers), ("sandboxes", collector.sandboxes)):
            await look(targets)
            begin, cpu = time.perf_counter(), time.process_time()
            stats = await look(targets)
            times[name] = (time.perf_counter() - begin, time.process_time() - cpu)
            assert len(stats) == 50
        assert all(one.linux.containers[0].HasField("memory") for one in stats)
        assert all(one.linux.HasField("network") for one in stats)
    finally:
        await host.unpin_namespaces(pins)
    with capsys.disabled():
        for name, (wall, cpu) in times.items():
            print(f" 50 {name}: {wall * 1e3:.1f} ms ({cpu * 1e3:.1f} ms CPU)", end="")


@pytest.fixture
def kubelet(daemon, tmp_path):
    parent = f"/noderuntime-stats-{os.getpid()}"
    client = Kubelet(daemon.socket, tmp_path, parent)
    yield client
    for one in client.pods():
        client.stop_and_remove(one)
    client.channel.close()
    left = traces(daemon.run, parent, daemon=daemon.pid)
    remove_cgroups(parent)
    assert left == []


@pytest.mark.parametrize("handler", ["runc", "gvisor"])
def test_the_stats_calls_of_a_pod(kubelet, handler):
    config = kubelet.pod_config()
    made = kubelet.run(config, handler)
    container = kubelet.run_container(
        made, config, "main", "dd if=/dev/zero of=/x bs=1M count=3; exec sleep 100"
    )
    ended = kubelet.run_container(made, config, "ended", "exit 0")
    wait_until(lambda: kubelet.status(ended).state == api_pb2.CONTAINER_EXITED, "its end")

    def listed():
        return kubelet.runtime.ListContainerStats(api_pb2.ListContainerStatsRequest()).stats

    wait_until(
        lambda: any(one.writable_layer.used_bytes.value > 3_000_000 for one in listed()), "what it wrote", 30
    )
    assert [one.attributes.id for one in listed()] == [container]
    wait_until(lambda: listed()[0].cpu.HasField("usage_nano_cores"), "a rate")
    nothing = api_pb2.ContainerStatsFilter(label_selector={"no": "such"})
    assert not kubelet.runtime.ListContainerStats(api_pb2.ListContainerStatsRequest(filter=nothing)).stats

    of_pod = kubelet.runtime.PodSandboxStats(api_pb2.PodSandboxStatsRequest(pod_sandbox_id=made)).stats
    assert of_pod.attributes.metadata == config.metadata
    assert of_pod.linux.memory.working_set_bytes.value > 0
    assert of_pod.linux.network.default_interface.name == "eth0"
    assert [one.attributes.id for one in of_pod.linux.containers] == [container]
    pods = kubelet.runtime.ListPodSandboxStats(api_pb2.ListPodSandboxStatsRequest()).stats
    assert [one.attributes.id for one in pods] == [made]

    filesystems = api_pb2_grpc.ImageServiceStub(kubelet.channel).ImageFsInfo(api_pb2.ImageFsInfoRequest())
    [image_filesystem] = filesystems.image_filesystems
    assert listed()[0].writable_layer.fs_id == image_filesystem.fs_id
    without_numbers = kubelet.runtime.ContainerStats(api_pb2.ContainerStatsRequest(container_id=ended)).stats
    assert not without_numbers.HasField("cpu")
    assert without_numbers.HasField("writable_layer")
