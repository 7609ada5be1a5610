"""An empty or failing read is no evidence: nothing is removed from nodes whose agent has not reported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from control_plane import ControlPlane, eventually
from release import NAMESPACE, ROOT, Operator
from simulated import RUNTIME_LABEL, Cluster

LABEL = "handler.noderuntime.dev/e-runc"
CRD = "noderuntimeinstances.noderuntime.dev"


def establish(plane: ControlPlane) -> None:
    plane.kubectl("apply", "-f", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))


@pytest.fixture
def restored(installed: ControlPlane, operator: Operator) -> Iterator[Operator]:
    """The operator; at the end the CRDs are established and it runs again."""
    yield operator
    establish(installed)
    if operator.process.poll() is not None:
        operator.start()


def test_lost_crd_removes_nothing_from_running_pods(cluster: Cluster, restored: Operator) -> None:
    cluster.node("e1", "e")
    cluster.runtime("e", "e")
    eventually(lambda: cluster.instance("e1"), "no instance")
    cluster.report("e1", "Ready", e_runc=("Ready", ""))
    eventually(lambda: cluster.has("e", "Ready", "True", "AllNodesReady"), "never Ready")
    cluster.pod("survivor", "e1", "e-runc")

    def assert_untouched() -> None:
        assert cluster.labels("e1").items() >= {RUNTIME_LABEL: "e", LABEL: "true"}.items()
        assert cluster.plane.get("daemonset", "noderuntime-agent-e", "-n", NAMESPACE)
        assert cluster.plane.get("runtimeclass", "e-runc")

    before = len(restored.logged())
    cluster.plane.kubectl("delete", "crd", CRD)
    # The cache of instances is incomplete without the CRD, so nothing is reconciled.
    eventually(
        lambda: "kind='NodeRuntimeInstance' status=404" in restored.logged(before),
        "the operator does not notice that the CRD is gone",
    )
    assert_untouched()
    cluster.plane.kubectl("delete", "nr", "e", "--wait=false")
    establish(cluster.plane)
    eventually(lambda: cluster.has("e", "Progressing", "True", "PodsStillRunning"), "pods do not hold it")
    assert_untouched()

    cluster.delete_pod("survivor")
    eventually(lambda: cluster.instance("e1"), "the lost instance is not restored")
    assert cluster.instance("e1")["spec"]["state"] == "Removed"
    assert cluster.labels("e1")[RUNTIME_LABEL] == "e"
    cluster.report("e1", "Removed", kubelet="Upstream")
    eventually(lambda: RUNTIME_LABEL not in cluster.labels("e1"), "the node keeps its claim")
