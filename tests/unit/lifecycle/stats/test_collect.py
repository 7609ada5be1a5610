import pytest

from noderuntime.cri.v1 import api_pb2
from noderuntime.images.base import SnapshotUsage
from noderuntime.lifecycle.ledger.records import Container, Sandbox
from noderuntime.lifecycle.stats.cgroup_sample import Sample
from noderuntime.lifecycle.stats.collect import PodTarget, StatsCollector
from noderuntime.lifecycle.stats.layers import WritableLayers


class Reader:
    """Has a cgroup for every path with a CPU time."""

    def __init__(self):
        self.cpu = {}

    def read(self, path):
        return Sample(timestamp=1, cpu=self.cpu[path], processes=2) if path in self.cpu else None


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
async def collector(reader):
    async def usage(_key):
        return SnapshotUsage(100, 3)

    async def filesystem():
        return "/var/lib/store"

    layers = WritableLayers(usage, filesystem)
    yield StatsCollector(reader, "cgroupfs", layers)
    await layers.close()


@pytest.fixture
def sandbox():
    config = api_pb2.PodSandboxConfig(metadata=api_pb2.PodSandboxMetadata(name="web"))
    config.linux.cgroup_parent = "/kubepods/pod1"
    return Sandbox(id="s" * 64, handler="runc", config=config, created_at=1, ready_at=1)


def container(letter, **times):
    config = api_pb2.ContainerConfig(metadata=api_pb2.ContainerMetadata(name=letter), labels={"a": letter})
    return Container(id=letter * 64, sandbox_id="s" * 64, config=config, created_at=1, **times)


def running(letter):
    return container(letter, prepared_at=1, started_at=1)


def target(sandbox, *containers, in_sandbox=False):
    return PodTarget(
        sandbox, containers, in_sandbox=in_sandbox, running=[one.id for one in containers if one.running]
    )


async def test_a_container_is_sampled_from_its_own_cgroup(collector, reader, sandbox):
    reader.cpu[f"/kubepods/pod1/{'a' * 64}"] = 5
    [stats] = await collector.containers([target(sandbox, running("a"))])
    assert stats.attributes.id == "a" * 64
    assert stats.attributes.labels == {"a": "a"}
    assert stats.cpu.usage_core_nano_seconds.value == 5
    assert stats.writable_layer.fs_id.mountpoint == "/var/lib/store"
    assert stats.writable_layer.used_bytes.value == 100


async def test_a_stopped_container_has_only_its_layer(collector, reader, sandbox):
    reader.cpu[f"/kubepods/pod1/{'a' * 64}"] = 5
    stopped = container("a", prepared_at=1, started_at=1, finished_at=2)
    [stats] = await collector.containers([target(sandbox, stopped)])
    assert not stats.HasField("cpu")
    assert stats.HasField("writable_layer")


async def test_containers_in_a_sandbox_share_its_cgroup(collector, reader, sandbox):
    reader.cpu |= {f"/kubepods/pod1/{'s' * 64}": 8, "/kubepods/pod1": 10}
    [stats] = await collector.sandboxes([target(sandbox, running("a"), running("b"), in_sandbox=True)])
    assert [one.cpu.usage_core_nano_seconds.value for one in stats.linux.containers] == [4, 4]
    assert stats.linux.cpu.usage_core_nano_seconds.value == 10


async def test_one_of_several_containers_gets_its_part(collector, reader, sandbox):
    reader.cpu[f"/kubepods/pod1/{'s' * 64}"] = 8
    both = PodTarget(sandbox, [running("b")], in_sandbox=True, running=["a" * 64, "b" * 64])
    [stats] = await collector.containers([both])
    assert stats.cpu.usage_core_nano_seconds.value == 4


async def test_a_pod_is_sampled_with_its_containers(collector, reader, sandbox):
    reader.cpu |= {"/kubepods/pod1": 7, f"/kubepods/pod1/{'a' * 64}": 5}
    [stats] = await collector.sandboxes([target(sandbox, running("a"))])
    assert stats.attributes.metadata.name == "web"
    assert stats.linux.cpu.usage_core_nano_seconds.value == 7
    assert stats.linux.process.process_count.value == 2
    assert [one.attributes.id for one in stats.linux.containers] == ["a" * 64]
    assert not stats.linux.HasField("network"), "the pod has the host's network"


async def test_no_pods_give_no_statistics(collector):
    assert await collector.containers([]) == []
    assert await collector.sandboxes([]) == []
