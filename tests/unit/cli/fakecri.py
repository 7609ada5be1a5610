# ruff: noqa: N802 - CRI names the methods
"""A fake CRI runtime in memory, served at a real socket by threads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from noderuntime.cri.v1 import api_pb2 as cri
from noderuntime.cri.v1 import api_pb2_grpc

POD = "a1" * 32
CONTAINER = "c1" * 32
HOSTILE = "evil\x1b[2J\u202e\x7f\nname"


class FakeRuntime(api_pb2_grpc.RuntimeServiceServicer, api_pb2_grpc.ImageServiceServicer):
    """A runtime that returns what a test set and keeps no state."""

    def __init__(self) -> None:
        self.pods = [
            cri.PodSandbox(
                id=POD,
                metadata=cri.PodSandboxMetadata(name="web", namespace="shop", uid="u", attempt=2),
                state=cri.SANDBOX_READY,
                created_at=2,
                runtime_handler="gvisor",
            )
        ]
        self.containers = [
            cri.Container(
                id=CONTAINER,
                pod_sandbox_id=POD,
                metadata=cri.ContainerMetadata(name="app"),
                image=cri.ImageSpec(image="sha256:11", user_specified_image="shop/app:1"),
                state=cri.CONTAINER_RUNNING,
                created_at=2,
            )
        ]
        self.status = cri.ContainerStatus(id=CONTAINER, state=cri.CONTAINER_RUNNING)
        self.conditions = [cri.RuntimeCondition(type="RuntimeReady", status=True)]
        self.lists_fail = False

    def Version(self, request: Any, context: grpc.ServicerContext) -> cri.VersionResponse:
        return cri.VersionResponse(
            runtime_name="noderuntime", runtime_version="9.9", runtime_api_version="v1"
        )

    def Status(self, request: Any, context: grpc.ServicerContext) -> cri.StatusResponse:
        return cri.StatusResponse(
            status=cri.RuntimeStatus(conditions=self.conditions),
            runtime_handlers=[
                cri.RuntimeHandler(
                    name="runc", features=cri.RuntimeHandlerFeatures(recursive_read_only_mounts=True)
                ),
                cri.RuntimeHandler(name=""),
            ],
            info={"noderuntime": json.dumps({"handlers": {"runc": HOSTILE}})},
        )

    def ListPodSandbox(self, request: Any, context: grpc.ServicerContext) -> cri.ListPodSandboxResponse:
        self._may_fail(context)
        return cri.ListPodSandboxResponse(items=self.pods)

    def ListContainers(self, request: Any, context: grpc.ServicerContext) -> cri.ListContainersResponse:
        self._may_fail(context)
        return cri.ListContainersResponse(containers=self.containers)

    def PodSandboxStatus(
        self, request: cri.PodSandboxStatusRequest, context: grpc.ServicerContext
    ) -> cri.PodSandboxStatusResponse:
        if request.pod_sandbox_id not in {pod.id for pod in self.pods}:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no sandbox {request.pod_sandbox_id}")
        return cri.PodSandboxStatusResponse(
            status=cri.PodSandboxStatus(id=request.pod_sandbox_id, created_at=1_000_000_000),
            info={"info": '{"pid": 7}', "text": "no JSON"},
        )

    def ContainerStatus(
        self, request: cri.ContainerStatusRequest, context: grpc.ServicerContext
    ) -> cri.ContainerStatusResponse:
        if request.container_id != self.status.id:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no container {request.container_id}")
        return cri.ContainerStatusResponse(status=self.status)

    def ListImages(self, request: Any, context: grpc.ServicerContext) -> cri.ListImagesResponse:
        return cri.ListImagesResponse(
            images=[
                cri.Image(id="sha256:" + "f" * 64, repo_digests=["shop/app@sha256:00"], size=3 << 20),
                cri.Image(id="sha256:" + "e" * 64, repo_tags=["b:1", "a:1"], size=5000, pinned=True),
            ]
        )

    def ImageStatus(
        self, request: cri.ImageStatusRequest, context: grpc.ServicerContext
    ) -> cri.ImageStatusResponse:
        found = cri.ImageStatusResponse()
        if request.image.image == "b:1":
            found.image.id = "sha256:" + "e" * 64
        return found

    def ImageFsInfo(self, request: Any, context: grpc.ServicerContext) -> cri.ImageFsInfoResponse:
        used = cri.FilesystemUsage(
            fs_id=cri.FilesystemIdentifier(mountpoint="/images"),
            used_bytes=cri.UInt64Value(value=2048),
            inodes_used=cri.UInt64Value(value=12),
        )
        return cri.ImageFsInfoResponse(image_filesystems=[used])

    def _may_fail(self, context: grpc.ServicerContext) -> None:
        if self.lists_fail:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the node's own runtime is not available")


def serve(runtime: FakeRuntime, socket: Path) -> grpc.Server:
    """Return a started server. The caller must stop it."""
    server = grpc.server(ThreadPoolExecutor(4))
    api_pb2_grpc.add_RuntimeServiceServicer_to_server(runtime, server)
    api_pb2_grpc.add_ImageServiceServicer_to_server(runtime, server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    return server
