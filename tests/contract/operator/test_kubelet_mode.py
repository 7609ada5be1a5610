"""Two runtimes never run one pod: changes of kubelet.mode, and RuntimeClasses of others."""

from __future__ import annotations

import asyncio

import pytest
from control_plane import ControlPlane, eventually
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_kube_config
from release import NAMESPACE
from simulated import Cluster

from noderuntime_operator.api.noderuntime import NodeRuntimeSpec
from noderuntime_operator.api.status import NodeRuntimeStatus
from noderuntime_operator.apply import Applier
from noderuntime_operator.cluster_state import ClusterState, RuntimeView
from noderuntime_operator.kube import Kube
from noderuntime_operator.metrics import Metrics
from noderuntime_operator.rollout import plan
from noderuntime_operator.settings import AgentSettings
from noderuntime_operator.writes import Writer

LABEL = "handler.noderuntime.dev/"


def foreign_class(name: str, handler: str) -> dict[str, object]:
    return {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": name},
        "handler": handler,
    }


@pytest.fixture
def serving(cluster: Cluster) -> Cluster:
    """The node m1 in mode Delegate, with a proven handler."""
    cluster.node("m1", "m")
    cluster.runtime("m", "m")
    eventually(lambda: cluster.instance("m1"), "no instance")
    cluster.report("m1", "Ready", m_runc=("Ready", ""))
    eventually(lambda: cluster.has("m", "Ready", "True", "AllNodesReady"), "never Ready")
    return cluster


def test_mode_change_waits_for_the_nodes_pods(serving: Cluster) -> None:
    serving.pod("living", "m1", "m-runc")
    serving.runtime("m", "m", kubelet={"mode": "Manual"})
    eventually(lambda: serving.has("m", "Ready", "False", "PodsStillRunning"), "pods do not block the change")
    message = serving.condition("m", "Progressing")["message"]
    assert message.startswith("kubelet.mode Manual is not applied to nodes with such pods (m1)")
    assert "default/living" in message
    assert serving.instance("m1")["spec"]["kubelet"]["mode"] == "Delegate"
    assert serving.labels("m1")[f"{LABEL}m-runc"] == "true"

    serving.delete_pod("living")
    eventually(
        lambda: serving.instance("m1")["spec"]["kubelet"]["mode"] == "Manual", "the mode never changes"
    )
    assert f"{LABEL}m-runc" not in serving.labels("m1")

    serving.report("m1", "Ready", kubelet="Upstream", m_runc=("Ready", ""))
    eventually(lambda: serving.has("m", "Ready", "True", "SocketServed"), "Ready does not name the promise")
    assert f"{LABEL}m-runc" not in serving.labels("m1")


def test_foreign_class_of_a_handler_is_named(serving: Cluster) -> None:
    serving.plane.apply(foreign_class("fast", "m-runc"))
    try:
        eventually(lambda: serving.has("m", "Degraded", "True", "RuntimeClassConflict"), "no conflict")
        assert "RuntimeClass fast uses" in serving.condition("m", "Degraded")["message"]
        assert serving.condition("m", "Ready")["status"] == "True"
    finally:
        serving.plane.kubectl("delete", "runtimeclass", "fast")
    eventually(lambda: serving.has("m", "Degraded", "False", "AsExpected"), "the conflict is not resolved")


async def test_class_unknown_to_the_cache_is_not_taken_over(installed: ControlPlane) -> None:
    installed.apply(foreign_class("theirs", "theirs"))
    spec = NodeRuntimeSpec.model_validate(
        {"selector": {"matchLabels": {"a": "b"}}, "handlers": [{"name": "theirs", "type": "Runc"}]}
    )
    runtime = RuntimeView("unseen", "uid", "1", 1, False, (), spec, NodeRuntimeStatus())
    configuration = Configuration()
    await load_kube_config(str(installed.kubeconfig), client_configuration=configuration)
    try:
        async with Kube(ApiClient(configuration), NAMESPACE, Metrics()) as kube:
            agent = AgentSettings(namespace=NAMESPACE, image="example.test/noderuntime:test")
            applier = Applier(kube, agent, Writer(asyncio.get_running_loop().time, lambda: None))
            await applier.apply(runtime, ClusterState(), plan(runtime, ClusterState()))
        assert "labels" not in installed.get("runtimeclass", "theirs")["metadata"]
    finally:
        installed.kubectl("delete", "runtimeclass", "theirs")
        installed.kubectl("delete", "daemonset", "noderuntime-agent-unseen", "-n", NAMESPACE)
