"""Build the desired manifests from a spec. Pure: the result does not depend on the cluster's state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from noderuntime_operator.agent_pod import agent_pod
from noderuntime_operator.api.instance import InstanceHandler, InstanceKubelet, InstanceSpec
from noderuntime_operator.api.names import (
    API_VERSION,
    HANDLER_LABEL_PREFIX,
    OWNER_LABEL,
    REVISION_LABEL,
    SERVICE_ACCOUNT_LABEL,
)
from noderuntime_operator.api.noderuntime import NodeRuntimeSpec
from noderuntime_operator.api.revision import Handler, Revision
from noderuntime_operator.cluster_state import NodeView, RevisionView
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


def revision_of(spec: NodeRuntimeSpec, image: str = "") -> Revision:
    """Return the revision that a spec and an image of the agents make."""
    return Revision(image=image, kubelet=spec.kubelet, handlers=spec.handlers, runtime=spec.runtime)


def revision_name(runtime: str, revision: Revision) -> str:
    """Return the name of a revision and of its ControllerRevision, which follows from its content."""
    content = json.dumps(revision.dump(), sort_keys=True)
    return f"{runtime}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def controller_revision(
    runtime: str, view: RevisionView, agent: AgentSettings, service_account: str = ""
) -> Manifest:
    """Return the ControllerRevision that stores a revision. service_account is the uid of the agents'.

    The label app.kubernetes.io/component is not set: the DaemonSet controller would adopt the object.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": view.name,
            "namespace": agent.namespace,
            "labels": {**owned(runtime), REVISION_LABEL: view.name.rpartition("-")[2]},
            **_of_release(agent, service_account),
        },
        "revision": view.number,
        "data": view.revision.dump(),
    }


def daemon_set(runtime: str, agent: AgentSettings, service_account: str = "") -> Manifest:
    """Return the DaemonSet of the agents, which selects the nodes that this NodeRuntime claimed.

    The operator replaces the pods itself. service_account is the uid of their ServiceAccount.
    """
    found_by = {OWNER_LABEL: runtime, "app.kubernetes.io/component": "agent"}
    labels = {**owned(runtime), **found_by, "app.kubernetes.io/name": "noderuntime"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": daemon_set_name(runtime),
            "namespace": agent.namespace,
            "labels": labels,
            **_of_release(agent, service_account),
        },
        "spec": {
            "selector": {"matchLabels": found_by},
            "updateStrategy": {"type": "OnDelete"},
            "template": agent_pod(
                {**labels, SERVICE_ACCOUNT_LABEL: service_account}, {OWNER_LABEL: runtime}, agent
            ),
        },
    }


def _of_release(agent: AgentSettings, service_account: str) -> dict[str, Any]:
    """Return the owner that removes an object with the chart's release, also if no operator runs then.

    Agents of a release that is gone have no access, and must not stay beside those of another one.
    """
    if not service_account:
        return {}
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": agent.service_account}
    return {"ownerReferences": [{**owner, "uid": service_account}]}


def daemon_set_name(runtime: str) -> str:
    """Return the name of the DaemonSet of a NodeRuntime's agents."""
    return f"noderuntime-agent-{runtime}"


def instance_spec(
    node: str,
    runtime: str,
    revision: Revision,
    retained: Iterable[InstanceHandler] = (),
) -> InstanceSpec:
    """Return the desired state of one node.

    Retained handlers are no longer in the revision, but pods still use them.
    """
    kubelet = revision.kubelet
    handlers = {
        handler.name: InstanceHandler(name=handler.name, type=handler.type) for handler in revision.handlers
    }
    for handler in retained:
        handlers.setdefault(handler.name, handler)
    return InstanceSpec(
        node_name=node,
        runtime_name=runtime,
        image=revision.image or None,
        kubelet=InstanceKubelet(mode=kubelet.mode, switch_timeout_seconds=kubelet.switch_timeout_seconds),
        handlers=list(handlers.values()),
        runtime=revision.runtime,
    )


def instance(node: NodeView, spec: InstanceSpec, annotations: Mapping[str, str] | None = None) -> Manifest:
    """Return the NodeRuntimeInstance of a node; Kubernetes deletes it with its Node."""
    return {
        "apiVersion": API_VERSION,
        "kind": "NodeRuntimeInstance",
        "metadata": {
            "name": node.name,
            "labels": owned(spec.runtime_name),
            "annotations": dict(annotations or {}),
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": node.uid}],
        },
        "spec": spec.dump(),
    }
