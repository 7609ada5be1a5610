"""PortForward: which pods, which ports, which network."""

from __future__ import annotations

import pytest
from fakes import FakeExecutor, Node, pod_config

from noderuntime.cri.v1 import api_pb2
from noderuntime.errors import FailedPrecondition, InvalidArgument, NotFound
from noderuntime.pods.port_forward import port_forward_session
from noderuntime.pods.run import run_pod_sandbox
from noderuntime.pods.stop import stop_pod_sandbox


def request(pod: str, *ports: int) -> api_pb2.PortForwardRequest:
    return api_pb2.PortForwardRequest(pod_sandbox_id=pod, port=ports)


async def test_connections_are_made_in_the_pods_network(node: Node) -> None:
    pod = await run_pod_sandbox(node.parts, pod_config(), "runc")
    session = port_forward_session(node.parts, request(pod, 80, 443))
    assert (session.sandbox_id, session.ports) == (pod, (80, 443))
    (await session.connect(8080)).socket.close()
    executor = node.parts.executors["runc"]
    assert isinstance(executor, FakeExecutor)
    assert executor.connections == [(node.parts.paths.sandbox(pod).netns, 8080)]


async def test_a_pod_on_the_nodes_network_has_no_other(node: Node) -> None:
    config = pod_config()
    config.linux.security_context.namespace_options.network = api_pb2.NODE
    pod = await run_pod_sandbox(node.parts, config, "runc")
    (await port_forward_session(node.parts, request(pod)).connect(8080)).socket.close()
    executor = node.parts.executors["runc"]
    assert isinstance(executor, FakeExecutor)
    assert executor.connections == [(None, 8080)]


async def test_only_into_pods_that_are_ready(node: Node) -> None:
    with pytest.raises(NotFound):
        port_forward_session(node.parts, request("none"))
    pod = await run_pod_sandbox(node.parts, pod_config(), "runc")
    session = port_forward_session(node.parts, request(pod))
    await stop_pod_sandbox(node.parts, pod)
    with pytest.raises(FailedPrecondition, match="not ready"):
        port_forward_session(node.parts, request(pod))
    with pytest.raises(FailedPrecondition, match="not ready"):
        await session.connect(80)


@pytest.mark.parametrize("ports", [(0,), (-1,), (65536,), tuple(range(1, 35))])
async def test_ports_that_cannot_be(node: Node, ports: tuple[int, ...]) -> None:
    pod = await run_pod_sandbox(node.parts, pod_config(), "runc")
    with pytest.raises(InvalidArgument, match="at most 32 numbers from 1 to 65535"):
        port_forward_session(node.parts, request(pod, *ports))
