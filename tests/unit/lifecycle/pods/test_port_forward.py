"""PortForward: which pods, which ports, which network."""

from __future__ import annotations

import asyncio

import pytest
from fakes import FakeExecutor, Node, pod_config
from fakesessions import FakeClient

from noderuntime.core.errors import FailedPrecondition, InvalidArgument, NotFound
from noderuntime.cri.v1 import api_pb2
from noderuntime.lifecycle.pods.port_forward import port_forward_session
from noderuntime.lifecycle.pods.run import run_pod_sandbox
from noderuntime.lifecycle.pods.stop import stop_pod_sandbox
from noderuntime.node.host.base import STDOUT


def request(pod: str, *ports: int) -> api_pb2.PortForwardRequest:
    return api_pb2.PortForwardRequest(pod_sandbox_id=pod, port=ports)


async def test_port_forward_connects_in_the_pods_network(node: Node) -> None:
    pod = await run_pod_sandbox(node.parts, pod_config(), "runc")
    session = port_forward_session(node.parts, request(pod, 80, 443))
    assert (session.sandbox_id, session.ports) == (pod, (80, 443))
    executor = node.parts.executors["runc"]
    assert isinstance(executor, FakeExecutor)
    client = FakeClient()
    client.input.put_nowait(b"word")
    client.input.put_nowait(b"")
    serving = asyncio.create_task(session.serve(8080, client))
    await client.receives((STDOUT, b"echo word"))
    executor.program.end()
    await serving
    assert executor.connections == [(node.parts.paths.sandbox(pod).netns, 8080)]
    assert executor.program.closed


async def test_client_that_leaves_closes_its_connection(node: Node) -> None:
    pod = await run_pod_sandbox(node.parts, pod_config(), "runc")
    executor = node.parts.executors["runc"]
    assert isinstance(executor, FakeExecutor)
    client = FakeClient()
    client.input.put_nowait(b"word")
    serving = asyncio.create_task(port_forward_session(node.parts, request(pod)).serve(80, client))
    await client.receives((STDOUT, b"echo word"))
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert executor.program.closed


async def test_port_forward_to_a_host_network_pod_uses_the_host(node: Node) -> None:
    config = pod_config()
    config.linux.security_context.namespace_options.network = api_pb2.NODE
    pod = await run_pod_sandbox(node.parts, config, "runc")
    executor = node.parts.executors["runc"]
    assert isinstance(executor, FakeExecutor)
    executor.program.end()
    await port_forward_session(node.parts, request(pod)).serve(8080, FakeClient())
    assert executor.connections == [(None, 8080)]


async def test_port_forward_needs_a_ready_pod(node: Node) -> None:
    with pytest.raises(NotFound):
        port_forward_session(node.parts, request("none"))
    pod = await run_pod_sandbox(node.parts, pod_config(), "runc")
    session = port_forward_session(node.parts, request(pod))
    await stop_pod_sandbox(node.parts, pod)
    with pytest.raises(FailedPrecondition, match="not ready"):
        port_forward_session(node.parts, request(pod))
    with pytest.raises(FailedPrecondition, match="not ready"):
        await session.serve(80, FakeClient())


@pytest.mark.parametrize("ports", [(0,), (-1,), (65536,), tuple(range(1, 35))])
async def test_invalid_ports_are_refused(node: Node, ports: tuple[int, ...]) -> None:
    pod = await run_pod_sandbox(node.parts, pod_config(), "runc")
    with pytest.raises(InvalidArgument, match="at most 32 numbers from 1 to 65535"):
        port_forward_session(node.parts, request(pod, *ports))
