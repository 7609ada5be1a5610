"""The world of a run: control plane, Nodes, operator and simulated nodes, removed at its end."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from harness.paths import REPO
from scale.chart import Chart, render
from scale.client import NODES, RUNTIMES, Api, ApiError, Json
from scale.controlplane import OPERATOR, AuditedControlPlane, Loopback
from scale.kubeconfig import admin
from scale.node_processes import NodeProcesses
from scale.objects import NAMESPACE, RUNTIME, node
from scale.operator_process import Operator
from scale.watching import LabelGuard

IMAGE = "registry.example.com/noderuntime:v1"
_PLURALS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
}
_AT_ONCE = 16


@dataclass
class World:
    """Everything that the stages of a run use."""

    size: int
    api: Api
    control_plane: AuditedControlPlane
    chart: Chart
    operator: Operator
    nodes: NodeProcesses
    guard: LabelGuard

    async def start_operator(self, image: str = IMAGE) -> None:
        """Start the operator, with agents of that image."""
        settings = {"NODERUNTIME_AGENT": self.chart.agent_settings(image)}
        await self.operator.start(self.chart.environment | settings)

    async def status(self) -> Json:
        """Return the NodeRuntime's status, or an empty one while the API server is away."""
        self.operator.check()
        try:
            found = await self.api.get(f"{RUNTIMES}/{RUNTIME}")
        except (ApiError, aiohttp.ClientError, OSError):
            return {}
        status: Json = found.get("status") or {}
        return status


@asynccontextmanager
async def world(size: int, processes: int) -> AsyncIterator[World]:
    """Start the control plane with the chart's objects and the Nodes, and the processes of nodes."""
    with tempfile.TemporaryDirectory(prefix="noderuntime-scale-") as scratch:
        directory = Path(scratch)
        with _control_plane(directory) as control_plane:
            url, tls = admin(control_plane.kubeconfig)
            chart = render(IMAGE)
            (directory / "operator.kubeconfig").write_text(control_plane.client_config("operator", OPERATOR))
            operator = Operator(directory / "operator.kubeconfig", directory / "operator.log")
            nodes = NodeProcesses(processes, directory / "nodes.log")
            async with Api(url, tls) as api:
                await _install(api, chart)
                await _create_nodes(api, size, processes)
                await _write_credentials(api, control_plane, directory)
                guard = LabelGuard(api)
                try:
                    await nodes.start(control_plane.kubeconfig, directory)
                    yield World(size, api, control_plane, chart, operator, nodes, guard)
                except BaseException:
                    _save_logs(directory)
                    raise
                finally:
                    await guard.stop()
                    await operator.stop()
                    await nodes.stop()


@contextmanager
def _control_plane(directory: Path) -> Iterator[AuditedControlPlane]:
    # The index is a random subnet of the loopback network: runs do not share ports.
    control_plane = AuditedControlPlane(directory / "control", Loopback("scale", secrets.randbelow(1 << 15)))
    try:
        control_plane.up()
        yield control_plane
    finally:
        control_plane.down()


def _save_logs(directory: Path) -> None:
    """Keep the logs of a failed run."""
    target = REPO / "build" / "scale-logs"
    target.mkdir(parents=True, exist_ok=True)
    for log in (
        *directory.glob("*.log"),
        *directory.glob("control/kube-apiserver.log"),
        *directory.glob("control/audit.log"),
    ):
        (target / log.name).write_bytes(log.read_bytes())
    print(f"logs: {target}", flush=True)


async def _install(api: Api, chart: Chart) -> None:
    """Create what helm and the controllers of a cluster would have created."""
    namespace: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await api.request("POST", "/api/v1/namespaces", namespace)
    crds = [yaml.safe_load(file.read_text()) for file in sorted((REPO / "crds").glob("*.yaml"))]
    for manifest in (*crds, *chart.manifests):
        space = manifest["metadata"].get("namespace", "")
        await api.request("POST", _PLURALS[manifest["kind"]].format(namespace=space), manifest)


async def _create_nodes(api: Api, size: int, processes: int) -> None:
    places = asyncio.Semaphore(_AT_ONCE)

    async def create(number: int) -> None:
        async with places:
            body = node(number, number % processes)
            await api.request("POST", NODES, body)

    async with asyncio.TaskGroup() as group:
        for number in range(size):
            group.create_task(create(number))


async def _write_credentials(api: Api, control_plane: AuditedControlPlane, directory: Path) -> None:
    """Write the agents' token and CA, as their pods would mount them."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/noderuntime-agent/token"
    found = await api.request("POST", path, {"spec": {"expirationSeconds": 86400}})
    (directory / "token").write_text(found["status"]["token"])
    (directory / "ca.crt").write_bytes(control_plane.authority.pair.cert.read_bytes())


def pretty(status: Json) -> str:
    """Return a status as one line of an error message."""
    return json.dumps(status)[:3000]
