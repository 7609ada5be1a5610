"""Complete lifecycles of pods through the socket of a real daemon, which leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import grpc
import pytest
from realnode.containerd import IMAGE, Containerd
from realnode.daemon import Daemon
from realnode.pods import Kubelet, wait_until
from realnode.traces import netns_of

from noderuntime.cri.v1 import api_pb2

HANDLERS = ["runc", "crun", "gvisor"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_pod_is_created_run_and_removed(kubelet: Kubelet, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    assert netns_of(pod).exists()
    status = kubelet.runtime.PodSandboxStatus(api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
    assert status.state == api_pb2.SANDBOX_READY
    assert status.network.ip

    container = kubelet.create(pod, config, "main", "hostname; cat /etc/resolv.conf; exec sleep 1000")
    assert kubelet.status(container).state == api_pb2.CONTAINER_CREATED
    kubelet.start(container)
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING
    wait_until(lambda: "nameserver 192.0.2.53" in kubelet.log(config, "main"), "the container's words")
    assert kubelet.log(config, "main")[0] == "life"

    output = kubelet.exec(container, "cat; echo out; echo err >&2; exit 7")
    assert (output.stdout, output.stderr, output.exit_code) == (b"out\n", b"err\n", 7)

    kubelet.runtime.StopContainer(api_pb2.StopContainerRequest(container_id=container, timeout=2))
    ended = kubelet.status(container)
    assert ended.state == api_pb2.CONTAINER_EXITED
    assert ended.exit_code in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
    assert ended.finished_at >= ended.started_at >= ended.created_at > 0
    kubelet.runtime.RemoveContainer(api_pb2.RemoveContainerRequest(container_id=container))
    assert kubelet.containers() == set()

    kubelet.stop_and_remove(pod)
    assert kubelet.pods() == set()
    assert not netns_of(pod).exists()


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize(("script", "code", "reason"), [("exit 0", 0, "Completed"), ("exit 42", 42, "Error")])
def test_a_container_reports_its_own_exit(
    kubelet: Kubelet, handler: str, script: str, code: int, reason: str
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(pod, config, "main", f"echo bye; {script}")
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end")
    ended = kubelet.status(container)
    assert (ended.exit_code, ended.reason) == (code, reason)
    assert kubelet.log(config, "main") == ["bye"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_killed_daemon_recovers_its_pods(kubelet: Kubelet, daemon: Daemon, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    lasting = kubelet.run_container(pod, config, "lasting", "while sleep 0.1; do echo tick; done")
    dying = kubelet.run_container(pod, config, "dying", "sleep 2; echo last words; exit 9")
    before = kubelet.pods(), kubelet.containers()

    daemon.kill()
    assert kubelet.log(config, "dying") == []
    wait_until(lambda: kubelet.log(config, "dying") == ["last words"], "a container outlives the daemon")
    ticks = len(kubelet.log(config, "lasting"))
    wait_until(lambda: len(kubelet.log(config, "lasting")) > ticks + 3, "a log goes on without the daemon")
    daemon.start()

    assert (kubelet.pods(), kubelet.containers()) == before
    wait_until(lambda: kubelet.status(dying).state == api_pb2.CONTAINER_EXITED, "the end is known")
    assert (kubelet.status(dying).exit_code, kubelet.status(dying).reason) == (9, "Error")
    assert kubelet.status(lasting).state == api_pb2.CONTAINER_RUNNING
    assert kubelet.exec(lasting, "echo here").stdout == b"here\n"
    kubelet.stop_and_remove(pod)
    assert (kubelet.pods(), kubelet.containers()) == (set(), set())


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_graceful_restart_does_not_affect_pods(kubelet: Kubelet, daemon: Daemon, handler: str) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    started = kubelet.status(container).started_at
    daemon.stop()
    daemon.start()
    assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING
    assert kubelet.status(container).started_at == started


def test_a_retry_gets_the_result_of_the_timed_out_call(kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    run = api_pb2.RunPodSandboxRequest(config=config, runtime_handler="runc")
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            kubelet.runtime.RunPodSandbox(run, timeout=0.005)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    pod = kubelet.runtime.RunPodSandbox(run, timeout=30).pod_sandbox_id
    assert kubelet.pods() == {pod}


@pytest.mark.parametrize("pulled", [False, True], ids=["loaded", "pulled"])
def test_image_of_a_container_is_reported_as_by_containerd(
    kubelet: Kubelet, containerd: Containerd, pulled: bool
) -> None:
    if pulled:
        containerd.name_by_digest(IMAGE)
    statuses = []
    for handler in ("", "runc"):
        config = kubelet.pod_config()
        container = kubelet.create(kubelet.run(config, handler), config, "main", "true")
        statuses.append(kubelet.status(container))
    theirs, ours = statuses
    assert (ours.image_ref, ours.image.image) == (theirs.image_ref, theirs.image.image)
    assert ours.image_ref.startswith("noderuntime.test/busybox@sha256:" if pulled else "sha256:")
    image = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=IMAGE))
    assert ours.image_id == kubelet.images.ImageStatus(image, timeout=10).image.id
    assert (ours.image_ref == ours.image_id) is not pulled


def test_image_name_of_a_container_is_the_requested_tag(kubelet: Kubelet, containerd: Containerd) -> None:
    tags = ["noderuntime.test/other:1", "noderuntime.test/other:2"]
    containerd.import_image(tags[0], ["tags", "of", "their", "own"])
    containerd.tag(*tags)
    asked = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=tags[1]))
    image_id = kubelet.images.ImageStatus(asked, timeout=10).image.id
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    for number, tag in enumerate(tags):
        image = api_pb2.ImageSpec(image=image_id, user_specified_image=tag)
        container = kubelet.create(pod, config, f"main{number}", "true", image=image)
        assert kubelet.status(container).image.image == tag
        wanted = api_pb2.ListContainersRequest(filter=api_pb2.ContainerFilter(id=container))
        [listed] = kubelet.runtime.ListContainers(wanted, timeout=20).containers
        assert listed.image.image == tag


def test_without_the_upstream_lists_fail_and_our_pods_run(
    kubelet: Kubelet, daemon: Daemon, containerd: Containerd
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "runc")
    container = kubelet.run_container(pod, config, "main", "exec sleep 1000")
    containerd.stop()
    try:
        for call, request in (
            (kubelet.runtime.ListPodSandbox, api_pb2.ListPodSandboxRequest()),
            (kubelet.runtime.ListContainers, api_pb2.ListContainersRequest()),
            (kubelet.runtime.ListContainerStats, api_pb2.ListContainerStatsRequest()),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        conditions = kubelet.runtime.Status(api_pb2.StatusRequest(), timeout=10).status.conditions
        assert {one.type: one.reason for one in conditions}["RuntimeReady"] == "UpstreamNotReady"
        assert kubelet.exec(container, "echo here").stdout == b"here\n"
        daemon.kill()
        daemon.start()  # the upstream is still away
        assert kubelet.status(container).state == api_pb2.CONTAINER_RUNNING
    finally:
        containerd.start()

    def listed() -> bool:
        try:
            return pod in kubelet.pods()
        except grpc.RpcError:
            return False

    wait_until(listed, "lists heal by themselves")


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        pytest.param(
            {"image": api_pb2.ImageSpec(image="noderuntime.test/none:1")},
            grpc.StatusCode.NOT_FOUND,
            "noderuntime.test/none:1",
            id="missing image",
        ),
        pytest.param(
            {"mounts": [api_pb2.Mount(container_path="/data", host_path="/proc/version/under")]},
            None,
            "/proc/version/under",
            id="bad mount source",
        ),
        pytest.param(
            {
                "linux": api_pb2.LinuxContainerConfig(
                    security_context=api_pb2.LinuxContainerSecurityContext(run_as_username="nobody-here")
                )
            },
            None,
            "nobody-here",
            id="bad user",
        ),
        pytest.param({"command": ["/no/such/program"]}, None, "/no/such/program", id="command not found"),
    ],
)
def test_a_failed_create_is_one_line_and_leaves_nothing(
    kubelet: Kubelet, handler: str, fields: dict[str, object], code: grpc.StatusCode | None, words: str
) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, handler)
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.run_container(pod, config, "main", "exec sleep 1000", **fields)
    details = caught.value.details()
    assert words in details
    assert "\n" not in details
    assert len(details) < 600
    if not kubelet.containers():
        assert not list(Path(config.log_directory).iterdir())
    if code is not None:
        assert caught.value.code() is code


@pytest.mark.parametrize(
    ("config", "handler", "words"),
    [
        pytest.param({}, "kata", "known: crun, gvisor, runc, theirs", id="unknown handler"),
        pytest.param(
            {"metadata": api_pb2.PodSandboxMetadata(name="n" * 10_000)},
            "runc",
            "config.metadata.name has 10000 bytes",
            id="long name",
        ),
    ],
)
def test_an_invalid_pod_is_rejected(
    kubelet: Kubelet, config: dict[str, object], handler: str, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.run(kubelet.pod_config(**config), handler)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


def test_systemd_is_notified_when_the_socket_serves(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        daemon.stop()
        daemon.start()
        assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=30000000"
        assert manager.recv(100) == b"READY=1"
        daemon.stop()
        assert manager.recv(100) == b"STOPPING=1"
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not daemon.socket.exists()
    daemon.start()
    assert os.stat(daemon.socket).st_mode & 0o777 == 0o600


def test_a_sandbox_above_its_pods_memory_is_oom_killed(kubelet: Kubelet) -> None:
    config = kubelet.pod_config()
    pod = kubelet.run(config, "gvisor")
    container = kubelet.run_container(
        pod, config, "main", "until test -e /dev/shm/go; do sleep 0.1; done; exec tail /dev/zero"
    )
    hierarchies, group = Path("/sys/fs/cgroup"), config.linux.cgroup_parent.lstrip("/")
    if (hierarchies / "memory").is_dir():
        (hierarchies / "memory" / group / "memory.limit_in_bytes").write_text(str(96 << 20))
    else:
        (hierarchies / group / "memory.swap.max").write_text("0")
        (hierarchies / group / "memory.max").write_text(str(96 << 20))
    assert kubelet.exec(container, ">/dev/shm/go").exit_code == 0
    wait_until(lambda: kubelet.status(container).state == api_pb2.CONTAINER_EXITED, "its end", 60)
    ended = kubelet.status(container)
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
