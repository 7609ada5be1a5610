"""Pod metrics, events, streamed lists and checkpoints of real pods, beside those of the upstream."""

from __future__ import annotations

import queue
import shutil
import tarfile
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from realnode.containerd import Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.traces import remove_cgroups

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["runc", "gvisor"]
BUSY = "i=0; while test $i -lt 200000; do i=$((i+1)); done; echo done; exec sleep 1000"


def values(container: api_pb2.ContainerMetrics) -> dict[str, int]:
    """Return the values by name."""
    return {one.name: one.value.value for one in container.metrics}


@pytest.mark.parametrize("handler", HANDLERS)
def test_metrics_of_a_pod(kubelet: Kubelet, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    limits = api_pb2.LinuxContainerResources(memory_limit_in_bytes=256 << 20, cpu_shares=512)
    container = kubelet.run_container(
        pod, config, "main", BUSY, linux=api_pb2.LinuxContainerConfig(resources=limits)
    )
    wait_until(lambda: kubelet.log(config, "main") == ["done"], "some work")
    reported = kubelet.runtime.ListPodSandboxMetrics(api_pb2.ListPodSandboxMetricsRequest(), timeout=60)
    [ours] = [one for one in reported.pod_metrics if one.pod_sandbox_id == pod]
    described = kubelet.runtime.ListMetricDescriptors(api_pb2.ListMetricDescriptorsRequest(), timeout=60)
    keys = {one.name: list(one.label_keys) for one in described.descriptors}
    for metric in (*ours.metrics, *ours.container_metrics[0].metrics):
        assert len(metric.label_values) == len(keys[metric.name]), metric.name
    labels = dict(
        zip(keys["container_last_seen"], ours.container_metrics[0].metrics[0].label_values, strict=True)
    )
    assert (labels["pod"], labels["namespace"]) == (config.metadata.name, "life")
    assert (labels["container"], labels["id"]) == ("main", container)
    traffic = {one.name for one in ours.metrics if one.label_values[-1] == "eth0"}
    assert "container_network_transmit_bytes_total" in traffic
    numbers = values(ours.container_metrics[0])
    assert numbers["container_memory_usage_bytes"] > 0
    assert numbers["container_memory_working_set_bytes"] > 0
    assert numbers["container_spec_memory_limit_bytes"] == 256 << 20
    assert numbers["container_start_time_seconds"] > 1_600_000_000
    assert numbers["container_fs_limit_bytes"] > 1 << 20
    assert "container_cpu_usage_seconds_total" in numbers
    if handler == "runc":
        assert numbers["container_processes"] == 1
        assert numbers["container_file_descriptors"] >= 3
        assert numbers["container_oom_events_total"] == 0
        assert numbers["container_ulimits_soft"] > 0


def test_streamed_lists_need_the_upstreams_support(kubelet: Kubelet) -> None:
    with pytest.raises(grpc.RpcError) as refused:  # clients ask for the plain list then
        list(kubelet.runtime.StreamPodSandboxes(api_pb2.StreamPodSandboxesRequest(), timeout=60))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def alone(containerd: Containerd, tmp_path: Path) -> Iterator[Kubelet]:
    """Yield a kubelet of a standalone daemon."""
    run = Path(tempfile.mkdtemp(prefix="nrct-", dir="/run"))
    served = Daemon(run, Path(tempfile.mkdtemp(prefix="noderuntime-state-")), containerd, alone=True)
    served.start()
    client = Kubelet(served.socket, tmp_path, f"/noderuntime-alone-{uuid.uuid4().hex[:8]}")
    try:
        yield client
    finally:
        client.channel.close()
        served.remove()
        remove_cgroups(client.parent)


def test_streamed_lists_equal_the_unary_ones(alone: Kubelet) -> None:
    config = alone.pod_config()
    pod = alone.run(config, "runc")
    container = alone.run_container(pod, config, "main", "exec sleep 1000")
    runtime = alone.runtime
    pods = runtime.StreamPodSandboxes(api_pb2.StreamPodSandboxesRequest(), timeout=60)
    assert [one.id for part in pods for one in part.pod_sandboxes] == [pod]
    containers = runtime.StreamContainers(api_pb2.StreamContainersRequest(), timeout=60)
    assert [one.id for part in containers for one in part.containers] == [container]
    other = api_pb2.StreamContainersRequest(filter={"pod_sandbox_id": "f" * 64})
    assert list(runtime.StreamContainers(other, timeout=60)) == []
    stats = runtime.StreamContainerStats(api_pb2.StreamContainerStatsRequest(), timeout=60)
    assert [one.attributes.id for part in stats for one in part.container_stats] == [container]
    of_pods = runtime.StreamPodSandboxStats(api_pb2.StreamPodSandboxStatsRequest(), timeout=60)
    assert [one.attributes.id for part in of_pods for one in part.pod_sandbox_stats] == [pod]
    metrics = runtime.StreamPodSandboxMetrics(api_pb2.StreamPodSandboxMetricsRequest(), timeout=60)
    assert [one.pod_sandbox_id for part in metrics for one in part.pod_sandbox_metrics] == [pod]


class Listener:
    """Receives events as the kubelet does, in a thread."""

    def __init__(self, kubelet: Kubelet) -> None:
        self.call = kubelet.runtime.GetContainerEvents(api_pb2.GetEventsRequest(), timeout=120)
        self.heard: queue.Queue[api_pb2.ContainerEventResponse] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for event in self.call:
                self.heard.put(event)
        except grpc.RpcError:
            return

    def until(self, kind: api_pb2.ContainerEventType, identifier: str) -> api_pb2.ContainerEventResponse:
        """Wait for an event. Earlier ones are dropped."""
        while True:
            event = self.heard.get(timeout=30)
            if (event.container_event_type, event.container_id) == (kind, identifier):
                return event


@pytest.fixture
def listener(kubelet: Kubelet) -> Iterator[Listener]:
    """Yield a listener that has received an event, so that it is known to be connected."""
    made = Listener(kubelet)
    while made.heard.empty():
        kubelet.stop_and_remove(kubelet.run(kubelet.pod_config(), "runc"))
    yield made
    made.call.cancel()


@pytest.mark.parametrize("handler", HANDLERS)
def test_events_contain_the_pods_current_status(kubelet: Kubelet, listener: Listener, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    started = listener.until(api_pb2.CONTAINER_STARTED_EVENT, pod)
    assert started.pod_sandbox_status.metadata.uid == config.metadata.uid
    assert started.pod_sandbox_status.state == api_pb2.SANDBOX_READY
    assert started.pod_sandbox_status.network.ip != ""
    container = kubelet.run_container(pod, config, "main", "exit 3")
    ended = listener.until(api_pb2.CONTAINER_STOPPED_EVENT, container)
    [status] = ended.containers_statuses
    assert (status.state, status.exit_code, status.reason) == (api_pb2.CONTAINER_EXITED, 3, "Error")
    kubelet.stop_and_remove(pod)
    stopped = listener.until(api_pb2.CONTAINER_STOPPED_EVENT, pod)
    assert stopped.pod_sandbox_status.state == api_pb2.SANDBOX_NOTREADY
    listener.until(api_pb2.CONTAINER_DELETED_EVENT, container)
    gone = listener.until(api_pb2.CONTAINER_DELETED_EVENT, pod)
    assert gone.pod_sandbox_status.metadata.uid == config.metadata.uid
    assert list(gone.containers_statuses) == []


def test_a_checkpoint_is_an_archive_or_one_clear_error(kubelet: Kubelet, tmp_path: Path) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(pod, config, "main", "echo x >/made; exec sleep 1000")
    request = api_pb2.CheckpointContainerRequest(container_id=container, location=str(tmp_path / "c.tar"))
    if shutil.which("criu") is None:
        with pytest.raises(grpc.RpcError, match="install the program criu on this node") as refused:
            kubelet.runtime.CheckpointContainer(request, timeout=60)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert list(tmp_path.glob("*c.tar*")) == []
    else:
        kubelet.runtime.CheckpointContainer(request, timeout=60)
        with tarfile.open(tmp_path / "c.tar") as archive:
            names = set(archive.getnames())
        assert {"./checkpoint/inventory.img", "./config.dump", "./rootfs-diff.tar", "./dump.log"} <= names
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING
    assert kubelet.exec(container, "cat /made").stdout == b"x\n"


def test_checkpoint_is_unimplemented_in_gvisor(kubelet: Kubelet, tmp_path: Path) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "gvisor")
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    request = api_pb2.CheckpointContainerRequest(container_id=container, location=str(tmp_path / "c.tar"))
    with pytest.raises(grpc.RpcError, match="gvisor offers no checkpoints") as refused:
        kubelet.runtime.CheckpointContainer(request, timeout=60)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
