"""Build the desired manifests from a spec. Pure: the result does not depend on the cluster's state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from noderuntime_operator.agent_pod import agent_pod
from noderuntime_operator.api import (
    API_VERSION,
    HANDLER_LABEL_PREFIX,
    OWNER_LABEL,
    RESTORED_ANNOTATION,
    Handler,
    InstanceHandler,
    InstanceKubelet,
    InstanceSpec,
    NodeRuntimeSpec,
)
from noderuntime_operator.cluster_state import NodeView
from noderuntime_operator.settings import AgentSettings

Manifest = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "noderuntime-operator"


def owned(runtime: str) -> dict[str, str]:
    """Return the labels that mark an object as belonging to this NodeRuntime.

    ownerReferences would not do: a foreground deletion of the NodeRuntime would delete the agents
    before they have cleaned up their nodes.
    """
    return {MANAGED_BY: MANAGER, OWNER_LABEL: runtime}


def runtime_class(runtime: str, handler: Handler) -> Manifest:
    """Return the RuntimeClass of a handler, which selects the nodes where the handler was proven."""
    manifest: Manifest = {
        "apiVersion": "node.k8s.io/v1",
        "kind": "RuntimeClass",
        "metadata": {"name": handler.runtime_class, "labels": owned(runtime)},
        "handler": handler.name,
        "scheduling": {"nodeSelector": {OWNER_LABEL: runtime, HANDLER_LABEL_PREFIX + handler.name: "true"}},
    }
    fixed = handler.overhead.dump() if handler.overhead else {}
    return {**manifest, "overhead": {"podFixed": fixed}} if fixed else manifest


def daemon_set(runtime: str, spec: NodeRuntimeSpec, agent: AgentSettings) -> Manifest:
    """Return the DaemonSet of the agents, which selects the nodes that this NodeRuntime claimed."""
    found_by = {OWNER_LABEL: runtime, "app.kubernetes.io/component": "agent"}
    labels = {**owned(runtime), **found_by, "app.kubernetes.io/name": "noderuntime"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": daemon_set_name(runtime), "namespace": agent.namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": found_by},
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": spec.update.max_unavailable, "maxSurge": 0},
            },
            "template": agent_pod(labels, {OWNER_LABEL: runtime}, agent),
        },
    }


def daemon_set_name(runtime: str) -> str:
    """Return the name of the DaemonSet of a NodeRuntime's agents."""
    return f"noderuntime-agent-{runtime}"


def instance_spec(
    node: str,
    runtime: str,
    spec: NodeRuntimeSpec,
    retained: Iterable[InstanceHandler] = (),
) -> InstanceSpec:
    """Return the desired state of one node.

    Retained handlers are no longer in the NodeRuntime's spec, but pods still use them.
    """
    handlers = {
        handler.name: InstanceHandler(name=handler.name, type=handler.type) for handler in spec.handlers
    }
    for handler in retained:
        handlers.setdefault(handler.name, handler)
    return InstanceSpec(
        node_name=node,
        runtime_name=runtime,
        kubelet=InstanceKubelet(
            mode=spec.kubelet.mode, switch_timeout_seconds=spec.kubelet.switch_timeout_seconds
        ),
        handlers=list(handlers.values()),
        runtime=spec.runtime,
    )


def instance(node: NodeView, spec: InstanceSpec, *, restored: bool = False) -> Manifest:
    """Return the NodeRuntimeInstance of a node; Kubernetes deletes it with its Node."""
    annotations = {"annotations": {RESTORED_ANNOTATION: "true"}} if restored else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "NodeRuntimeInstance",
        "metadata": {
            "name": node.name,
            "labels": owned(spec.runtime_name),
            **annotations,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}],
        },
        "spec": spec.dump(),
    }
