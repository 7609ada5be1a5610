"""The objects of a cluster whose nodes and agents the tests simulate."""

from __future__ import annotations

from typing import Any

from control_plane import ControlPlane, eventually

API = "noderuntime.dev/v1alpha1"
RUNTIME_LABEL = "noderuntime.dev/runtime"
DETERMINED = "2026-01-01T00:00:00Z"


class Cluster:
    """The control plane with Node objects that no kubelet stands behind; close() removes them."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self._nodes: list[str] = []
        self._runtimes: list[str] = []

    def node(self, name: str, pool: str, ready: bool = True) -> None:
        labels = {"pool": pool, "kubernetes.io/os": "linux"}
        self.plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
        self._nodes.append(name)
        self.set_ready(name, ready)

    def set_ready(self, name: str, ready: bool) -> None:
        condition = {"type": "Ready", "status": str(ready), "reason": "Test", "lastHeartbeatTime": DETERMINED}
        self.plane.patch_status("node", name, {"conditions": [condition]})

    def runtime(self, name: str, pool: str, handlers: tuple[str, ...] = ("runc",), **spec: Any) -> None:
        types = {"gvisor": "GVisor"}
        self.plane.apply(
            {
                "apiVersion": API,
                "kind": "NodeRuntime",
                "metadata": {"name": name},
                "spec": {
                    "selector": {"matchLabels": {"pool": pool}},
                    "handlers": [{"name": f"{name}-{h}", "type": types.get(h, "Runc")} for h in handlers],
                    **spec,
                },
            }
        )
        self._runtimes.append(name)

    def pod(self, name: str, node: str, runtime_class: str) -> None:
        """Create a pod that is bound to the node."""
        self.plane.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "nodeName": node,
                    "runtimeClassName": runtime_class,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "example.test/x"}],
                },
            }
        )

    def delete_pod(self, name: str) -> None:
        self.plane.kubectl("delete", "pod", name, "--grace-period=0", "--force")

    def report(
        self, node: str, phase: str, *, kubelet: str = "Noderuntime", **handlers: tuple[str, str]
    ) -> None:
        """Write the instance's status as the node's agent would."""
        instance = self.plane.get("nri", node)
        statuses = [
            {"name": name.replace("_", "-"), "state": state, "reason": "HandlerBroken", "message": message}
            for name, (state, message) in handlers.items()
        ]
        self.plane.patch_status(
            "nri",
            node,
            {
                "observedGeneration": instance["metadata"]["generation"],
                "phase": phase,
                "kubelet": {"state": kubelet},
                "handlers": statuses,
            },
        )

    def instance(self, node: str) -> dict[str, Any]:
        return self.plane.get("nri", node)

    def labels(self, node: str) -> dict[str, str]:
        return dict(self.plane.get("node", node)["metadata"]["labels"])

    def condition(self, runtime: str, kind: str) -> dict[str, str]:
        conditions = self.plane.get("nr", runtime).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {})

    def has(self, runtime: str, kind: str, status: str, reason: str) -> bool:
        found = self.condition(runtime, kind)
        return (found.get("status"), found.get("reason")) == (status, reason)

    def close(self) -> None:
        for name in self._runtimes:
            self.plane.kubectl("delete", "nr", name, "--ignore-not-found", "--wait=false")
            self.plane.kubectl(
                "patch", "nr", name, "--type=merge", "-p", '{"metadata":{"finalizers":null}}', check=False
            )
        for name in self._nodes:
            self.plane.kubectl("delete", "node", name, "--ignore-not-found")
            eventually(lambda name=name: not self.instance(name), f"instance {name} exists without its node")
