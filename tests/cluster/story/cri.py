"""A CRI client for the sockets inside a node."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from harness.node import Node
from noderuntime.cri.v1 import api_pb2 as pb
from noderuntime.cri.v1.api_pb2_grpc import ImageServiceStub, RuntimeServiceStub

CONTAINERD = "/run/containerd/containerd.sock"
NODERUNTIME = "/run/noderuntime/noderuntime.sock"

Runtime = RuntimeServiceStub


@dataclass(frozen=True)
class StartedPod:
    """A pod started without a kubelet, and the duration of its start."""

    sandbox: str
    container: str
    seconds: float


@contextmanager
def connect(node: Node, path: str) -> Iterator[RuntimeServiceStub]:
    """Connect to a unix socket in the node's filesystem."""
    with _channel(node, path) as channel:
        yield RuntimeServiceStub(channel)  # type: ignore[no-untyped-call]


def list_images(node: Node, path: str) -> list[pb.Image]:
    """Return all images."""
    with _channel(node, path) as channel:
        images = ImageServiceStub(channel)  # type: ignore[no-untyped-call]
        return list(images.ListImages(pb.ListImagesRequest(), timeout=10).images)


@contextmanager
def watched(node: Node, path: str) -> Iterator[Callable[[], float]]:
    """Observe a socket; yield a function that returns the longest time in seconds without a listener."""
    target, ended, longest = f"/proc/{node.pid()}/root{path}", threading.Event(), 0.0

    def observe() -> None:
        nonlocal longest
        last = time.monotonic()
        while not ended.wait(0.01):
            if _accepts(target):
                last = time.monotonic()
            longest = max(longest, time.monotonic() - last)

    thread = threading.Thread(target=observe)
    thread.start()
    try:
        yield lambda: longest
    finally:
        ended.set()
        thread.join()


def _accepts(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def _channel(node: Node, path: str) -> grpc.Channel:
    target = f"unix:/proc/{node.pid()}/root{path}"
    return grpc.insecure_channel(target, options=(("grpc.default_authority", "localhost"),))


def version(runtime: Runtime) -> str:
    """Return the name of the runtime behind the socket."""
    return str(runtime.Version(pb.VersionRequest(), timeout=5).runtime_name)


def list_containers(runtime: Runtime) -> list[pb.Container]:
    """Return all containers, of noderuntime and the upstream."""
    return list(runtime.ListContainers(pb.ListContainersRequest(), timeout=10).containers)


def exec_sync(node: Node, container: str, *argv: str, timeout: int = 20) -> str:
    """Run a command in a container and return its output; raise RuntimeError with its errors."""
    with connect(node, NODERUNTIME) as runtime:
        request = pb.ExecSyncRequest(container_id=container, cmd=argv, timeout=timeout)
        answer = runtime.ExecSync(request, timeout=timeout + 5)
    if answer.exit_code != 0:
        raise RuntimeError(f"{argv}: exit code {answer.exit_code}: {answer.stderr.decode(errors='replace')}")
    return str(answer.stdout.decode())


def start_pod(runtime: RuntimeServiceStub, image: str, handler: str) -> StartedPod:
    """Start a pod with one sleeping container."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    metadata = pb.PodSandboxMetadata(name=name, uid=str(uuid.uuid4()), namespace="bench")
    sandbox_config = pb.PodSandboxConfig(
        metadata=metadata,
        hostname=name,
        log_directory=f"/var/log/pods/{name}",
        linux=pb.LinuxPodSandboxConfig(),
    )
    container_config = pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name="main"), image=pb.ImageSpec(image=image),
        command=["sleep", "1000"], log_path="main.log", linux=pb.LinuxContainerConfig(),
    )  # fmt: skip
    began = time.monotonic()
    request = pb.RunPodSandboxRequest(config=sandbox_config, runtime_handler=handler)
    sandbox = runtime.RunPodSandbox(request, timeout=60).pod_sandbox_id
    created = runtime.CreateContainer(
        pb.CreateContainerRequest(
            pod_sandbox_id=sandbox, config=container_config, sandbox_config=sandbox_config
        ),
        timeout=60,
    ).container_id
    runtime.StartContainer(pb.StartContainerRequest(container_id=created), timeout=60)
    return StartedPod(sandbox, created, time.monotonic() - began)


def remove_pod(runtime: RuntimeServiceStub, pod: StartedPod) -> None:
    """Stop and remove the pod."""
    runtime.StopPodSandbox(pb.StopPodSandboxRequest(pod_sandbox_id=pod.sandbox), timeout=60)
    runtime.RemovePodSandbox(pb.RemovePodSandboxRequest(pod_sandbox_id=pod.sandbox), timeout=60)
