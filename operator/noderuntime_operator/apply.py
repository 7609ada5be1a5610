"""Apply a Plan to the cluster, in an order that can be interrupted at any point.

First close RuntimeClasses that are to be removed, then create and update RuntimeClasses, DaemonSet and
instances, then change labels, then delete.
"""

from __future__ import annotations

from noderuntime_operator.api import API_VERSION, FINALIZER, OWNER_LABEL, NodeRuntimeStatus
from noderuntime_operator.cluster_state import ClusterState, RuntimeView
from noderuntime_operator.desired import daemon_set, daemon_set_name, instance, runtime_class
from noderuntime_operator.kube import Json, Kube, KubeError
from noderuntime_operator.rollout import Plan
from noderuntime_operator.settings import AgentSettings


async def add_finalizer(kube: Kube, runtime: RuntimeView) -> None:
    """Add the finalizer, which keeps the NodeRuntime until its nodes are cleaned up."""
    await _set_finalizers(kube, runtime, [*runtime.finalizers, FINALIZER])


async def drop_finalizer(kube: Kube, runtime: RuntimeView) -> None:
    """Remove the finalizer, which ends the deletion of the NodeRuntime, once no node is claimed."""
    if await _claims_nodes(kube, runtime):
        return
    await _set_finalizers(kube, runtime, [name for name in runtime.finalizers if name != FINALIZER])


async def _set_finalizers(kube: Kube, runtime: RuntimeView, finalizers: list[str]) -> None:
    meta = {"resourceVersion": runtime.resource_version, "finalizers": finalizers}
    await kube.patch("NodeRuntime", runtime.name, {"metadata": meta})


async def apply(
    kube: Kube, runtime: RuntimeView, cluster: ClusterState, plan: Plan, agent: AgentSettings
) -> dict[str, int]:
    """Apply the plan; return the generation of each written instance.

    Raises KubeError at the first refused request; the next reconciliation plans the rest again.
    """
    for name, labels in plan.class_labels.items():
        await _patch_labels(kube, "RuntimeClass", name, dict(labels))
    if plan.serve:
        await _apply_shared(kube, runtime, cluster, agent)
    written = await _write_instances(kube, cluster, plan)
    for name, labels in plan.labels.items():
        await _patch_labels(kube, "Node", name, dict(labels))
    await _prune(kube, runtime, plan)
    return written


async def _apply_shared(
    kube: Kube, runtime: RuntimeView, cluster: ClusterState, agent: AgentSettings
) -> None:
    """Apply the DaemonSet and the RuntimeClasses.

    A RuntimeClass that this NodeRuntime does not own is not changed. Neither is one with another
    handler, because that field is immutable: it is deleted when no pod uses it, then created again.
    """
    for handler in runtime.spec.handlers:
        known = cluster.runtime_classes.get(handler.runtime_class)
        manifest = runtime_class(runtime.name, handler)
        if known is None:
            await _create_if_absent(kube, manifest)
        elif (known.owner, known.handler) == (runtime.name, handler.name):
            manifest["metadata"]["uid"] = known.uid
            await kube.apply(manifest)
    await kube.apply(daemon_set(runtime.name, runtime.spec, agent))


async def _create_if_absent(kube: Kube, manifest: Json) -> None:
    """Create an object. One that exists is not changed: the cache does not show yet who owns it."""
    try:
        await kube.create(manifest)
    except KubeError as error:
        if error.status != 409:
            raise


async def _write_instances(kube: Kube, cluster: ClusterState, plan: Plan) -> dict[str, int]:
    """Create and update instances. The API server refuses a second owner if the cache is out of date."""
    written = {}
    for name, spec in {**plan.create, **plan.update}.items():
        known, node = cluster.instances.get(name), cluster.nodes[name]
        restored = known.restored if known else node.claimed_by == spec.runtime_name
        answer = await kube.apply(instance(node, spec, restored=restored))
        written[name] = int(answer["metadata"]["generation"])
    return written


async def _patch_labels(kube: Kube, kind: str, name: str, labels: Json) -> None:
    """Change the labels of an object, if it still exists."""
    try:
        await kube.patch(kind, name, {"metadata": {"labels": labels}})
    except KubeError as error:
        if error.status != 404:
            raise


async def _prune(kube: Kube, runtime: RuntimeView, plan: Plan) -> None:
    """Delete what the plan names. The DaemonSet exists until its pods are gone (foreground deletion)."""
    for name in plan.delete_instances:
        await kube.delete("NodeRuntimeInstance", name)
    for name in plan.delete_classes:
        await kube.delete("RuntimeClass", name)
    if plan.delete_daemon_set and not await _claims_nodes(kube, runtime):
        await kube.delete("DaemonSet", daemon_set_name(runtime.name), "Foreground")


async def _claims_nodes(kube: Kube, runtime: RuntimeView) -> bool:
    """Return whether a node is claimed by this NodeRuntime. Asks the store: a cache can be incomplete."""
    async for _ in kube.list("Node", label_selector=f"{OWNER_LABEL}={runtime.name}"):
        return True
    return False


async def write_status(kube: Kube, runtime: RuntimeView, status: NodeRuntimeStatus) -> bool:
    """Write the status if it differs from the current one; return whether it did."""
    if status == runtime.status:
        return False
    patch = {
        "apiVersion": API_VERSION,
        "kind": "NodeRuntime",
        "metadata": {"uid": runtime.uid},
        "status": status.dump(),
    }
    await kube.patch("NodeRuntime", runtime.name, patch, "status")
    return True
