"""The CRDs as a real API server sees them."""

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


def test_schemas_are_structural_and_serve_explain(plane: ControlPlane) -> None:
    for name in ("noderuntimes", "noderuntimeinstances"):
        conditions = plane.get("crd", f"{name}.noderuntime.dev")["status"]["conditions"]
        assert not [c for c in conditions if c["type"] == "NonStructuralSchema"]
    mode = ("explain", "noderuntime.node.spec.kubelet.mode")
    # A new CRD's schema is published a moment after the CRD is served.
    eventually(
        lambda: "kubelet is not changed" in " ".join(plane.kubectl(*mode, check=False).split()),
        "kubectl explain does not print the field's description",
    )


def test_a_good_object_is_accepted_and_defaulted(plane: ControlPlane) -> None:
    plane.apply(node_runtime("good", handlers=[RUNC, {"name": "gvisor", "type": "GVisor"}]))
    try:
        spec = plane.get("nr", "good")["spec"]
        assert spec["kubelet"] == {"mode": "Delegate", "switchTimeoutSeconds": 120}
        assert spec["updateStrategy"] == {"maxUnavailable": 1}
        assert "Delegate" in plane.kubectl("get", "nr", "good")
    finally:
        plane.kubectl("delete", "nr", "good")


@pytest.mark.parametrize(
    ("obj", "words"),
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
        (node_runtime(updateStrategy={"maxUnavailable": 0}), "maxUnavailable"),
        (node_runtime(handlers=[{**RUNC, "overhead": {"cpu": "lots"}}]), "overhead.cpu"),
    ],
)
def test_bad_objects_are_rejected_in_words(plane: ControlPlane, obj: dict[str, Any], words: str) -> None:
    answer = dry_run(plane, obj)
    assert "created" not in answer
    assert words in answer


def test_the_type_of_a_handler_cannot_change(plane: ControlPlane) -> None:
    plane.apply(node_runtime("fixed"))
    try:
        changed = node_runtime("fixed", handlers=[{"name": "runc", "type": "GVisor"}])
        assert "the type of a handler cannot change" in plane.apply(changed, check=False)
    finally:
        plane.kubectl("delete", "nr", "fixed")


def test_an_instance_is_named_after_its_node(plane: ControlPlane) -> None:
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
