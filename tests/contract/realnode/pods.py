"""The kubelet's part in the lifecycle of a pod, over a CRI socket."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from noderuntime.cri.v1 import api_pb2, api_pb2_grpc
from realnode.containerd import IMAGE

_SECONDS = 60.0


class Kubelet:
    """Makes CRI calls as the kubelet does. Every pod has its cgroup below ``cgroup_parent``."""

    def __init__(self, socket: Path, logs: Path, cgroup_parent: str) -> None:
        quickly = [("grpc.max_reconnect_backoff_ms", 100)]
        self.channel = grpc.insecure_channel(f"unix:{socket}", options=quickly)
        self.runtime = api_pb2_grpc.RuntimeServiceStub(self.channel)
        self.images = api_pb2_grpc.ImageServiceStub(self.channel)
        self._logs = logs
        self.parent = cgroup_parent
        self._numbers = itertools.count()

    def pod_config(self, **fields: object) -> api_pb2.PodSandboxConfig:
        """Return the config of a new pod."""
        uid = str(uuid.uuid4())
        config = api_pb2.PodSandboxConfig(
            metadata=api_pb2.PodSandboxMetadata(name=f"pod{next(self._numbers)}", namespace="life", uid=uid),
            hostname="life",
            log_directory=str(self._logs / uid),
            dns_config=api_pb2.DNSConfig(servers=["192.0.2.53"], searches=["life.test"]),
            labels={"app": "life"},
            linux=api_pb2.LinuxPodSandboxConfig(cgroup_parent=f"{self.parent}/pod{uid}"),
        )
        config.MergeFrom(api_pb2.PodSandboxConfig(**fields))  # type: ignore[arg-type]
        return config

    def run(self, config: api_pb2.PodSandboxConfig, handler: str) -> str:
        """RunPodSandbox."""
        request = api_pb2.RunPodSandboxRequest(config=config, runtime_handler=handler)
        return self.runtime.RunPodSandbox(request, timeout=_SECONDS).pod_sandbox_id

    def create(
        self, pod: str, config: api_pb2.PodSandboxConfig, name: str, script: str, **fields: object
    ) -> str:
        """CreateContainer, with a shell script as its program unless ``fields`` has another."""
        container = api_pb2.ContainerConfig(
            metadata=api_pb2.ContainerMetadata(name=name),
            image=api_pb2.ImageSpec(image=IMAGE),
            command=["sh", "-c", script],
            log_path=f"{name}.log",
        )
        for field in fields:
            container.ClearField(field)
        container.MergeFrom(api_pb2.ContainerConfig(**fields))  # type: ignore[arg-type]
        request = api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=container, sandbox_config=config)
        return self.runtime.CreateContainer(request, timeout=_SECONDS).container_id

    def start(self, container: str) -> None:
        """StartContainer."""
        self.runtime.StartContainer(api_pb2.StartContainerRequest(container_id=container), timeout=_SECONDS)

    def run_container(
        self, pod: str, config: api_pb2.PodSandboxConfig, name: str, script: str, **fields: object
    ) -> str:
        """Create and start."""
        container = self.create(pod, config, name, script, **fields)
        self.start(container)
        return container

    def status(self, container: str) -> api_pb2.ContainerStatus:
        """ContainerStatus."""
        request = api_pb2.ContainerStatusRequest(container_id=container)
        return self.runtime.ContainerStatus(request, timeout=_SECONDS).status

    def update(self, container: str, **limits: object) -> None:
        """UpdateContainerResources."""
        request = api_pb2.UpdateContainerResourcesRequest(
            container_id=container,
            linux=api_pb2.LinuxContainerResources(**limits),  # type: ignore[arg-type]
        )
        self.runtime.UpdateContainerResources(request, timeout=_SECONDS)

    def node_status(self) -> api_pb2.StatusResponse:
        """Status."""
        return self.runtime.Status(api_pb2.StatusRequest(), timeout=_SECONDS)

    def status_info(self, container: str) -> dict[str, Any]:
        """Return the ``info`` of a verbose ContainerStatus."""
        request = api_pb2.ContainerStatusRequest(container_id=container, verbose=True)
        info: dict[str, Any] = json.loads(
            self.runtime.ContainerStatus(request, timeout=_SECONDS).info["info"]
        )
        return info

    def exec(self, container: str, script: str) -> api_pb2.ExecSyncResponse:
        """ExecSync of a shell script."""
        request = api_pb2.ExecSyncRequest(container_id=container, cmd=["sh", "-c", script], timeout=20)
        return self.runtime.ExecSync(request, timeout=_SECONDS)

    def log(self, config: api_pb2.PodSandboxConfig, name: str) -> list[str]:
        """Return the lines of a container's log, of both streams, without times and tags."""
        written = (Path(config.log_directory) / f"{name}.log").read_text()
        return [line.split(" ", 3)[3] for line in written.splitlines()]

    def stop_and_remove(self, pod: str) -> None:
        """StopPodSandbox and RemovePodSandbox, both twice, as a kubelet does after a lost response."""
        for _ in range(2):
            self.runtime.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=_SECONDS)
        for _ in range(2):
            self.runtime.RemovePodSandbox(
                api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=_SECONDS
            )

    def answers(self) -> bool:
        """Return whether the runtime responds."""
        try:
            self.pods()
        except grpc.RpcError:
            return False
        return True

    def pods(self) -> set[str]:
        """Return the IDs of all pods."""
        listed = self.runtime.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=_SECONDS)
        return {pod.id for pod in listed.items}

    def pod_state(self, pod: str) -> api_pb2.PodSandboxState:
        """Return the state in PodSandboxStatus."""
        request = api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod)
        return self.runtime.PodSandboxStatus(request, timeout=_SECONDS).status.state

    def containers(self) -> set[str]:
        """Return the IDs of all containers."""
        listed = self.runtime.ListContainers(api_pb2.ListContainersRequest(), timeout=_SECONDS)
        return {container.id for container in listed.containers}


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Poll for a condition that no event announces."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
