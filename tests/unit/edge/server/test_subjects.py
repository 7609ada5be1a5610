"""Each log line of a call names its pod and container."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import Node, container_config, pod_config
from google.protobuf.message import Message

from noderuntime.core import log
from noderuntime.cri.v1 import api_pb2
from noderuntime.edge.server.subjects import with_subjects
from noderuntime.lifecycle.containers.create import create_container
from noderuntime.lifecycle.pods.run import run_pod_sandbox

_log = log.get("noderuntime.x")


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Collect the values of all lines."""
    lines: list[dict[str, object]] = []

    def take(level: int, message: str, extra: dict[str, dict[str, object]]) -> None:
        lines.append(extra["noderuntime_values"])

    monkeypatch.setattr(_log._logger, "log", take)
    monkeypatch.setattr(_log._logger, "isEnabledFor", lambda level: True)
    return lines


async def _call(node: Node, request: Message) -> None:
    """Answer a call by a verb that logs a line, in a task of its own as gRPC does; log one behind it."""

    async def verb(_request: Any) -> Message:
        _log.info("within")
        return api_pb2.VersionResponse()

    async def serve() -> None:
        await with_subjects({"Verb": verb}, node.parts.ledger)["Verb"](request)
        _log.warning("a call failed")

    await asyncio.create_task(serve())


async def test_log_lines_name_pod_and_container(node: Node, output: list[dict[str, object]]) -> None:
    pod = await run_pod_sandbox(node.parts, pod_config("web"), "runc")
    container = await create_container(node.parts, pod, container_config("app"))
    about_pod = {"pod": "default/web", "sandbox": pod}
    about_container = {**about_pod, "container": container, "container_name": "app"}
    for request, keys in (
        (api_pb2.RunPodSandboxRequest(config=pod_config("new")), {"pod": "default/new"}),
        (api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod), about_pod),
        (api_pb2.StartContainerRequest(container_id=container), about_container),
        (
            api_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=container_config("side")),
            {**about_pod, "container_name": "side"},
        ),
        (api_pb2.StopPodSandboxRequest(pod_sandbox_id="f" * 64), {}),
        (api_pb2.VersionRequest(), {}),
    ):
        output.clear()
        await _call(node, request)
        assert output == [keys, keys], request
