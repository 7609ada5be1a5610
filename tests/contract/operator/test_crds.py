"""The CRDs in a real API server: schemas, defaults, CEL rules."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from control_plane import ControlPlane, eventually

RUNC = {"name": "runc", "type": "Runc"}
LINUX = {"matchLabels": {"kubernetes.io/os": "linux"}}


def node_runtime(name: str = "test", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "noderuntime.dev/v1alpha1",
        "kind": "NodeRuntime",
        "metadata": {"name": name},
        "spec": {"selector": LINUX, "handlers": [RUNC], **spec},
    }


def dry_run(plane: ControlPlane, obj: dict[str, Any]) -> str:
    return plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(obj), check=False)


def test_crds_are_structural_and_kubectl_explains_them(plane: ControlPlane) -> None:
    for name in ("noderuntimes", "noderuntimeinstances"):
        conditions = plane.get("crd", f"{name}.noderuntime.dev")["status"]["conditions"]
        assert not [c for c in conditions if c["type"] == "NonStructuralSchema"]
    mode = ("explain", "noderuntime.spec.kubelet.mode")
    # The API server publishes the schema a moment after it serves the CRD.
    eventually(
        lambda: "kubelet is not changed" in " ".join(plane.kubectl(*mode, check=False).split()),
        "kubectl explain does not print the field's description",
    )


def test_valid_noderuntime_is_accepted_with_defaults(plane: ControlPlane) -> None:
    plane.apply(node_runtime("good", handlers=[RUNC, {"name": "gvisor", "type": "GVisor"}]))
    try:
        spec = plane.get("nr", "good")["spec"]
        assert spec["kubelet"] == {"mode": "Delegate", "switchTimeoutSeconds": 120}
        assert spec["update"] == {
            "maxUnavailable": 1,
            "maxFailures": 0,
            "paused": False,
            "rollback": "Automatic",
        }
        assert spec["minAvailable"] == "90%"
        assert spec["removal"] == {"policy": "Orphan", "orphanAfterSeconds": 3600}
        assert "Delegate" in plane.kubectl("get", "nr", "good")
    finally:
        plane.kubectl("delete", "nr", "good")


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (node_runtime(handlers=[RUNC, RUNC]), 'Duplicate value: {"name":"runc"}'),
        (node_runtime(handlers=[{"name": "kata", "type": "Kata"}]), 'supported values: "Runc", "GVisor"'),
        (node_runtime(selector={}), "selector is empty: give at least one label"),
        (node_runtime(selector={"matchLabels": {}}), "selector is empty"),
        (node_runtime(handlers=[]), "spec.handlers"),
        (node_runtime(handlers=[{"name": "A_b", "type": "Runc"}]), "spec.handlers[0].name"),
        (
            node_runtime(handlers=[RUNC, {"name": "b", "type": "Runc", "runtimeClassName": "runc"}]),
            "two handlers have the same runtimeClassName",
        ),
        (node_runtime(kubelet={"mode": "Magic"}), 'supported values: "Delegate", "Replace", "Manual"'),
        (node_runtime("n" * 64), "at most 63 characters"),
        (
            node_runtime(
                selector={"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}
            ),
            "Exists and DoesNotExist must not have values",
        ),
        (node_runtime(updateStrategy={"maxUnavailable": 1}), 'unknown field "spec.updateStrategy"'),
        (node_runtime(update={"maxUnavailable": 0}), "spec.update.maxUnavailable"),
        (node_runtime(update={"maxUnavailable": "0%"}), "spec.update.maxUnavailable"),
        (node_runtime(update={"maxUnavailable": "101%"}), "spec.update.maxUnavailable"),
        (node_runtime(update={"canary": {"soakSeconds": 1}}), "canary needs either selector or nodes"),
        (node_runtime(handlers=[{**RUNC, "overhead": {"cpu": "lots"}}]), "overhead.cpu"),
        (node_runtime(runtime={"logLevel": "Loud"}), 'supported values: "Debug", "Info", "Warning", "Error"'),
        (node_runtime(runtime={"metrics": {"address": "9464"}}), "spec.runtime.metrics.address"),
        (node_runtime(runtime={"metrics": {"address": "127.0.0.1:99999"}}), "port of address is larger"),
        (node_runtime(runtime={"gvisor": {"platform": "Ptrace"}}), 'supported values: "Systrap", "KVM"'),
        (node_runtime(runtime={"gvisor": {"debug": True}}), 'unknown field "spec.runtime.gvisor.debug"'),
    ],
)
def test_invalid_noderuntime_is_rejected_with_a_reason(
    plane: ControlPlane, obj: dict[str, Any], message: str
) -> None:
    answer = dry_run(plane, obj)
    assert "created" not in answer
    assert message in answer


def test_handler_type_is_immutable(plane: ControlPlane) -> None:
    plane.apply(node_runtime("fixed"))
    try:
        changed = node_runtime("fixed", handlers=[{"name": "runc", "type": "GVisor"}])
        assert "the type of a handler cannot change" in plane.apply(changed, check=False)
    finally:
        plane.kubectl("delete", "nr", "fixed")


def test_instance_must_have_its_nodes_name(plane: ControlPlane) -> None:
    instance = {
        "apiVersion": "noderuntime.dev/v1alpha1",
        "kind": "NodeRuntimeInstance",
        "metadata": {"name": "node-a"},
        "spec": {
            "nodeName": "node-b",
            "runtimeName": "test",
            "kubelet": {"mode": "Delegate", "switchTimeoutSeconds": 120},
            "handlers": [RUNC],
        },
    }
    assert "metadata.name must equal spec.nodeName" in dry_run(plane, instance)
    instance["spec"]["nodeName"] = "node-a"  # type: ignore[index]
    assert "created" in dry_run(plane, instance)
